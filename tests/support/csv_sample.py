"""CSV in bytes, drawn at random: as a careful program writes it, and as nobody should."""

from hypothesis import strategies as st

_TOKENS = (
    b"a",
    b",",
    b'"',
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    "é".encode(),
    b"\xc3",
    b"\xff",
    b'""',
    b'","',
    b'"\n"',
    b"\\.\n",
)
_LINE_ENDS = st.sampled_from((b"\n", b"\r\n"))

_plain_fields = st.text('a0- é"', max_size=4).filter(lambda text: not text.startswith('"')).map(str.encode)
_quoted_fields = st.text('a,é\r\n"', max_size=5).map(lambda text: b'"%b"' % text.replace('"', '""').encode())
_fields = st.one_of(_plain_fields, _quoted_fields)

clean_records = st.builds(
    lambda fields, line_end: b",".join(fields) + line_end, st.lists(_fields, min_size=1, max_size=4), _LINE_ENDS
)
"""One record with its line end; also an empty line."""

clean_csv = st.builds(
    lambda records, last: b"".join(records) + last, st.lists(clean_records, max_size=12), st.sampled_from((b"", b"a,b"))
)
"""Records that a strict reader takes, in UTF-8; quoted or not, with line feeds in quotes, the last line with no end."""

hostile_csv = st.lists(st.sampled_from(_TOKENS), max_size=40).map(b"".join)
"""Any order of what means something in CSV, and of bytes that are no UTF-8."""

mixed_csv = st.lists(st.one_of(clean_records, hostile_csv), max_size=6).map(b"".join)
"""Clean records with hostile bytes between them."""

any_csv = st.one_of(clean_csv, hostile_csv, mixed_csv)


def chunks_of(data: bytes) -> st.SearchStrategy[list[bytes]]:
    """Return a strategy for ways that bytes can come in: chunks of any length, also empty ones."""
    cuts = st.lists(st.integers(0, len(data)), max_size=6).map(sorted)
    return cuts.map(lambda at: [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)])
