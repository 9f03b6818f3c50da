"""The tables, and what reads the log: a row that says nothing, or a judge that sees nothing, is found here."""

from collections import Counter

import pytest

from tests.bad_input.http_row import APIS, CANARY, HOSTILE
from tests.bad_input.http_transport import UNFINISHED_ROWS
from tests.bad_input.http_world import TOKENS
from tests.bad_input.log_trace import faults_in
from tests.bad_input.test_http import ROWS

GOOD_LINE = b'{"timestamp":"t","level":"info","service":"s","instance":"i","event":"request","status":400}\n'


def test_every_row_has_a_name_of_its_own() -> None:
    """No row hides another, and each API has its hundreds."""
    names = Counter(str(row) for row in (*ROWS, *UNFINISHED_ROWS))
    assert [name for name, count in names.items() if count > 1] == []
    counts = Counter(row.api for row in ROWS)
    assert min(counts[api] for api in APIS) >= 150


def test_every_row_bears_the_canary() -> None:
    """There is something to look for in the log of each; what ends after its first byte has no room for it."""
    silent = [row.name for row in (*ROWS, *UNFINISHED_ROWS) if CANARY.encode() not in row.encode(TOKENS).lower()]
    assert silent == ["half a method"] * len(APIS)


def test_only_what_is_not_taken_over_is_served() -> None:
    """Each row is refused but those whose point is that a good request is served without the bad header."""
    assert {(row.status, row.code) for row in ROWS if row.status < 400} == {(200, None)}
    assert all(row.code is not None and 400 <= row.status < 500 for row in ROWS if row.status != 200)


@pytest.mark.parametrize(
    "line",
    [
        GOOD_LINE.replace(b"request", CANARY.encode()),
        GOOD_LINE.replace(b"request", CANARY.upper().encode()),
        GOOD_LINE.replace(b"request", b"\x1b[31m"),
        GOOD_LINE.replace(b"request", b"\x7f"),
        GOOD_LINE.replace(b"request", "\u202e".encode()),
        GOOD_LINE.replace(b"request", b"\xff"),
        GOOD_LINE.replace(b'"event"', b'"evil"'),
        GOOD_LINE.replace(b"\n", b"\r\n"),
        GOOD_LINE.rstrip(b"\n"),
        b"Traceback (most recent call last):\n",
        b'{"event":"forged"}\n',
        b"[]\n",
        b"\n",
        HOSTILE.encode(),
    ],
)
def test_line_that_a_log_must_not_hold_is_seen(line: bytes) -> None:
    """A word of the input, a byte nobody sees, or a line that is no event of ours is a fault; a good line is none."""
    assert list(faults_in(GOOD_LINE * 2)) == []
    assert list(faults_in(GOOD_LINE + line + GOOD_LINE))
