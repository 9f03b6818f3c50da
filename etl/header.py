"""What the first record of a file says: which column is which."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import Final

from etl.errors import FileRefusedError

COLUMNS: Final = ("code", "member_id", "reward_id", "value_cents", "currency", "issued_at", "expires_at")
"""What a file of coupons holds: each of them once, in any order, and nothing else."""

_SHOWN_NAMES: Final = 7
_SHOWN_CHARACTERS: Final = 40


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a file in its order; a permutation of `COLUMNS`."""

    columns: tuple[str, ...]


def read_header(record: bytes) -> Header:
    """Read a file's first record, without its line end: the names of its columns, exactly as they are in `COLUMNS`.

    Raises:
        FileRefusedError: It is no such record; the text names the columns that are missing, doubled and unknown.
    """
    if not record:
        raise FileRefusedError("the file has no header")
    try:
        (names,) = csv.reader(io.StringIO(record.decode(), newline="\n"), strict=True)
    except (csv.Error, ValueError):  # not one record, or not UTF-8
        raise FileRefusedError("the header is no record of CSV in UTF-8") from None
    counts = Counter(names)
    wrong = {
        "missing": [name for name in COLUMNS if name not in counts],
        "doubled": [name for name, count in counts.items() if count > 1],
        "unknown": [name for name in counts if name not in COLUMNS],
    }
    if any(wrong.values()):
        raise FileRefusedError(
            "the header is wrong: " + "; ".join(f"{what}: {_show(found)}" for what, found in wrong.items() if found)
        )
    return Header(tuple(names))


def _show(names: list[str]) -> str:
    shown = [_show_name(name) for name in names[:_SHOWN_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _show_name(name: str) -> str:
    is_long = len(name) > _SHOWN_CHARACTERS
    return ascii(name[:_SHOWN_CHARACTERS]) + ("..." if is_long else "")
