"""What a file's first record may be."""

import csv
import io
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etl.errors import FileRefusedError
from etl.header import COLUMNS, Header, read_header
from tests.support.csv_sample import any_csv

_RECORD = ",".join(COLUMNS)


def test_the_columns_may_stand_in_any_order() -> None:
    """Every order of the columns is a header, and is kept."""
    for columns in permutations(COLUMNS):
        assert read_header(",".join(columns).encode()) == Header(columns)


def test_quoted_names_are_names() -> None:
    """Quotes around a name change nothing."""
    assert read_header(",".join(f'"{name}"' for name in COLUMNS).encode()) == Header(COLUMNS)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ("", "no header"),
        (_RECORD.replace("code,", ""), "missing: 'code'"),
        (_RECORD + ",code", "doubled: 'code'"),
        (_RECORD + ",colour", "unknown: 'colour'"),
        (_RECORD.replace("code", "Code"), "missing: 'code'; unknown: 'Code'"),
        (_RECORD.replace("code", " code"), "missing: 'code'; unknown: ' code'"),
        (_RECORD + ",", "unknown: ''"),
        (_RECORD + ",x,x", "doubled: 'x'; unknown: 'x'"),
        (_RECORD.replace(",", ";"), "unknown: 'code;member_id;reward_id;value_cents;cur'..."),
        ('"code"x,' + _RECORD, "no record of CSV"),
        ('"' + _RECORD, "no record of CSV"),
        ("\ufeff" + _RECORD, r"unknown: '\ufeffcode'"),
        (_RECORD + ",\x1b[31m", "unknown: '\\x1b[31m'"),
    ],
)
def test_another_header_is_refused_by_a_text_that_says_what_is_wrong(record: str, text: str) -> None:
    """Missing, doubled and unknown columns are named, all of them at once."""
    with pytest.raises(FileRefusedError) as refused:
        read_header(record.encode())

    assert text in str(refused.value)


def test_bytes_that_are_no_utf8_are_refused() -> None:
    """A header in another encoding is no header."""
    with pytest.raises(FileRefusedError, match="UTF-8"):
        read_header(_RECORD.encode() + b",\xff")


@given(any_csv | st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
@example(",".join(f"\x1b{number}" * 100 for number in range(1000)).encode())
def test_what_the_text_shows_of_a_file_is_bounded_and_printable(record: bytes) -> None:
    """Whatever the record, the header is refused by a short text of printable ASCII."""
    with pytest.raises(FileRefusedError) as refused:
        read_header(record)

    text = str(refused.value)
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 3000


@given(st.permutations(COLUMNS), st.booleans())
@settings(deadline=None)
def test_a_header_as_a_program_writes_it_is_read(columns: list[str], quotes_all: bool) -> None:
    """What Python's csv writer writes is read, however it quotes."""
    written = io.StringIO()
    csv.writer(written, quoting=csv.QUOTE_ALL if quotes_all else csv.QUOTE_MINIMAL).writerow(columns)

    assert read_header(written.getvalue().rstrip().encode()).columns == tuple(columns)
