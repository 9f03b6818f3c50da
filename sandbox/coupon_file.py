"""Make files of coupons as a partner would send them: mostly good rows, some bad ones, some that come twice.

The same numbers and the same seed give the same file, byte for byte.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

HEADER: Final = b"code,member_id,reward_id,value_cents,currency,issued_at,expires_at\n"

_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_REWARDS: Final = ("rw-coffee", "rw-cinema", "rw-train-day", "rw-museum", "rw-breakfast")
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_SECONDS: Final = 365 * 86_400
_RECENT: Final = 10_000
"""From how many of the last good rows one is taken to come again."""

Fields = list[str]


def _longer(fields: Fields) -> Fields:
    return [*fields, "surplus"]


def _with(place: int, value: str) -> Callable[[Fields], Fields]:
    def change(fields: Fields) -> Fields:
        return [*fields[:place], value, *fields[place + 1 :]]

    return change


BAD_KINDS: Final[Mapping[str, Callable[[Fields], Fields]]] = {
    "a field too few": lambda fields: fields[:-1],
    "a field too many": _longer,
    "code with a small letter": lambda fields: [fields[0][1:] + "a", *fields[1:]],
    "code of a letter that is none": lambda fields: ["U" + fields[0][1:], *fields[1:]],
    "no member": _with(1, ""),
    "reward with a space": _with(2, "rw coffee"),
    "amount below nothing": _with(3, "-100"),
    "amount with a comma of its own": _with(3, '"1,50"'),
    "currency of four letters": _with(4, "EURO"),
    "day that is none": _with(5, "2026-02-30T10:00:00Z"),
    "time without an offset": _with(6, "2027-02-01T10:00:00"),
    "end before the beginning": lambda fields: [*fields[:5], fields[6], fields[5]],
}
"""What may be wrong with a row, each of it enough; every row stays one line."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row of a file, with its line end; `code` is its coupon's, or None for a bad row."""

    raw: bytes
    code: str | None


@dataclass(frozen=True, slots=True)
class CouponFile:
    """A file by the numbers that decide every byte of it, as `coupon_rows` takes them."""

    rows: int
    seed: int
    bad_percent: float = 0.0
    duplicate_percent: float = 0.0

    def made(self) -> Iterator[FileRow]:
        """Yield its rows; the first one is on line 2."""
        return coupon_rows(
            self.rows, seed=self.seed, bad_percent=self.bad_percent, duplicate_percent=self.duplicate_percent
        )

    def content(self) -> bytes:
        """Return all of it, with its header."""
        return HEADER + b"".join(row.raw for row in self.made())


def coupon_rows(
    rows: int,
    *,
    seed: int,
    bad_percent: float = 0.0,
    duplicate_percent: float = 0.0,
    is_quoted: bool = False,
) -> Iterator[FileRow]:
    """Return the rows of a file, its header left out, each made when it is asked for.

    Args:
        rows: how many, bad ones and those that come again among them.
        seed: decides everything.
        bad_percent: about so many of a hundred rows break a rule.
        duplicate_percent: about so many have the code of a row before, half of them with another amount.
        is_quoted: every field of a good row is in quotes.

    Raises:
        ValueError: A number is out of range.
    """
    if rows < 0 or not 0 <= bad_percent <= 100 or not 0 <= duplicate_percent <= 100:
        raise ValueError("rows must be 0 or more, and percents from 0 to 100")
    return _rows(rows, seed, bad_percent, duplicate_percent, is_quoted)


def _rows(rows: int, seed: int, bad_percent: float, duplicate_percent: float, is_quoted: bool) -> Iterator[FileRow]:
    random = Random(seed)  # noqa: S311 - a load, no secret
    kinds = list(BAD_KINDS.values())
    recent: list[Fields] = []
    for _ in range(rows):
        fields = _fields(random)
        draw = random.random() * 100
        if draw < bad_percent:
            yield FileRow(_line(random.choice(kinds)(fields)), None)
            continue
        if recent and draw < bad_percent + duplicate_percent:
            known = random.choice(recent)
            fields = list(known) if random.random() < 0.5 else [*known[:3], fields[3], *known[4:]]
        elif len(recent) < _RECENT:
            recent.append(fields)
        else:
            recent[random.randrange(_RECENT)] = fields
        yield FileRow(_line([f'"{field}"' for field in fields] if is_quoted else fields), fields[0])


def _fields(random: Random) -> Fields:
    issued_at = _BEGIN + timedelta(seconds=random.randrange(_SECONDS))
    expires_at = issued_at + timedelta(days=random.randint(1, 365))
    return [
        "".join(random.choices(_CROCKFORD, k=16)),
        f"m-{random.randrange(100_000)}",
        random.choice(_REWARDS),
        str(random.randrange(100, 10_000)),
        "EUR",
        issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    ]


def _line(fields: Fields) -> bytes:
    return ",".join(fields).encode() + b"\n"
