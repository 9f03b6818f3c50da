"""What the ledger of loaded files holds, as plain data, and its SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from etl.settings import Duplicates

NAME_CHARACTERS: Final = 255

OPEN: Final = """
insert into etl_files (content_sha256, content_bytes, name, duplicates) values ($1, $2, $3, $4)
on conflict (content_sha256) do nothing
"""

FIND: Final = """
select file_id, name, content_bytes, duplicates, state, created_at, loaded_at from etl_files where content_sha256 = $1
"""

DONE: Final = """
select byte_start, byte_end, line_start, line_end, inserted, skipped, rejected, conflicting
from etl_ranges where file_id = $1 order by byte_start
"""

# Two ranges that the constraint `etl_ranges_apart` compares: so its index finds them.
DONE_WITHIN: Final = """
select byte_start, byte_end, line_start, line_end, inserted, skipped, rejected, conflicting
from etl_ranges
where int8range(file_id, file_id, '[]') && int8range($1, $1, '[]')
    and int8range(byte_start, byte_end) && int8range($2, $3)
order by byte_start
"""

REJECTED: Final = "select coalesce(sum(rejected), 0)::bigint from etl_ranges where file_id = $1"

# Waits for whoever loads some of the same bytes now. Of two that begin at once, one goes on.
CLAIM: Final = """
insert into etl_ranges (file_id, byte_start, byte_end, line_start, line_end, inserted, skipped, rejected)
values ($1, $2, $3, $4, $5, $6, 0, $7)
on conflict do nothing
"""

COUNT: Final = """
update etl_ranges set inserted = $3, skipped = $4, conflicting = $5 where file_id = $1 and byte_start = $2
"""

CLAIMED: Final = """
select inserted, skipped, conflicting from etl_ranges where file_id = $1 and byte_start = $2 and byte_end = $3
"""

# The ranges lie apart, so they cover all if their sizes add up.
FINISH: Final = """
update etl_files set state = 'loaded', loaded_at = coalesce(loaded_at, now())
where file_id = $1 and content_bytes - $2 = (
    select coalesce(sum(byte_end - byte_start), 0) from etl_ranges
    where file_id = $1 and byte_start >= $2 and byte_end <= content_bytes
)
"""


@dataclass(frozen=True, slots=True)
class BatchRange:
    """Which part of a file a batch is: bytes after decompression, and physical lines from 1; both ends exclusive."""

    byte_start: int
    byte_end: int
    line_start: int
    line_end: int


@dataclass(frozen=True, slots=True)
class DoneRange(BatchRange):
    """A part of a file that is loaded, and what became of its rows."""

    inserted: int = 0
    skipped: int = 0
    rejected: int = 0
    conflicting: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of a file that is not loaded: whole records from a byte and a line on, up to the byte `byte_end`."""

    byte_start: int
    byte_end: int
    first_line: int


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """A file as the ledger knows it.

    Attributes:
        is_loaded: All of it was loaded, by this try or an earlier one.
        duplicates: The rule of the first try, and so of every other.
        done: What was loaded when the ledger was asked, in the order of the file.
    """

    file_id: int
    is_loaded: bool
    duplicates: Duplicates
    done: tuple[DoneRange, ...]

    @property
    def source(self) -> str:
        """What the rows of this file bear as their source."""
        return f"etl:{self.file_id}"


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What the ledger knows of a content: the three counts add up to the rows of its loaded parts.

    Attributes:
        name: What the file was called when it was first seen.
        inserted: How many codes it brought into the table.
        skipped: How many of its rows lost to another row of their code.
        conflicting: How many of the skipped found other values under their code than their own.
        rejected: How many of its rows may not be loaded.
        gaps: The bytes that are not loaded, as (start, end). The first one begins at 0, with the header, as long as the
            file is not loaded: the ledger does not know where the rows begin.
    """

    file_id: int
    name: str
    content_bytes: int
    duplicates: Duplicates
    state: str
    created_at: datetime
    loaded_at: datetime | None
    inserted: int
    skipped: int
    conflicting: int
    rejected: int
    gaps: tuple[tuple[int, int], ...]


def gaps_of(rows: Gap, done: Sequence[DoneRange]) -> list[Gap]:
    """Return what of some rows is not done, in order.

    Args:
        rows: of the file, or of a part of it.
        done: lie apart; the first and the last may reach beyond the rows.
    """
    gaps = []
    byte, line = rows.byte_start, rows.first_line
    for one in sorted(done, key=lambda each: each.byte_start):
        if one.byte_start > byte:
            gaps.append(Gap(byte, one.byte_start, line))
        byte, line = one.byte_end, one.line_end
    if byte < rows.byte_end:
        gaps.append(Gap(byte, rows.byte_end, line))
    return gaps


def bounded_name(name: str) -> str:
    """Return a file's name as the ledger keeps it: the end of it, with what is no Unicode spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()[-NAME_CHARACTERS:] or "-"
