"""What the database and the reject files hold of loaded files, read for the audit without any code of the ETL."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import asyncpg

from sandbox.coupon_file import CouponFile

_DIGITS_OF_A_NAME = 16


@dataclass(frozen=True, slots=True)
class LoadedCoupon:
    """A row of `coupons` that a file brought."""

    code: str
    member_id: str
    reward_id: str
    redemption_id: str | None
    value_cents: int
    currency: str
    issued_at: datetime
    expires_at: datetime
    status: str
    version: int
    source_line: int


@dataclass(frozen=True, slots=True)
class LoadedRange:
    """A row of `etl_ranges`: both ends are exclusive."""

    byte_start: int
    byte_end: int
    line_start: int
    line_end: int
    inserted: int
    skipped: int
    rejected: int


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A file that the ledger knows.

    Attributes:
        coupons: how many rows of the table bear its source.
        ranges: in the order of the file.
    """

    file_id: int
    content_sha256: bytes
    content_bytes: int
    state: str
    duplicates: str
    coupons: int
    ranges: Sequence[LoadedRange]


@dataclass(frozen=True, slots=True)
class LoadHoldings:
    """Everything the audit looks at of loaded files.

    Attributes:
        files: all that the ledger knows, by their SHA-256.
        coupons: the rows of the files that were asked for, by the same; those of others are only counted.
        rejects: line and bytes of each reject of those files.
        strays: how many rows name a file as their source that the ledger does not know.
    """

    files: Mapping[bytes, LoadedFile] = field(default_factory=dict)
    coupons: Mapping[bytes, Sequence[LoadedCoupon]] = field(default_factory=dict)
    rejects: Mapping[bytes, Sequence[tuple[int, bytes]]] = field(default_factory=dict)
    strays: int = 0


_FILES = "select file_id, content_sha256, content_bytes, state, duplicates from etl_files"
_RANGES = """
select file_id, byte_start, byte_end, line_start, line_end, inserted, skipped, rejected
from etl_ranges order by file_id, byte_start
"""
_COUNTS = "select source, count(*) as coupons from coupons where starts_with(source, 'etl:') group by source"
_COUPONS = """
select code, member_id, reward_id, redemption_id::text, value_cents, currency, issued_at, expires_at, status, version,
       source_line
from coupons where source = $1 order by source_line
"""


async def read_loads(
    connection: "asyncpg.Connection[asyncpg.Record]", files: Sequence[CouponFile], rejects: Path | None
) -> LoadHoldings:
    """Read what is there of files, within the transaction of a connection.

    Args:
        connection: to the database `coupons`.
        files: those whose rows are wanted, and not only their number.
        rejects: the directory with their reject files; None where there is none.

    Raises:
        OSError, asyncpg.PostgresError: something cannot be read.
        ValueError: a reject file is damaged.
    """
    counts = {row["source"]: row["coupons"] for row in await connection.fetch(_COUNTS)}
    ranges: dict[int, list[LoadedRange]] = {}
    for file_id, *columns in await connection.fetch(_RANGES):
        ranges.setdefault(file_id, []).append(LoadedRange(*columns))
    found = {}
    for row in await connection.fetch(_FILES):
        file_id = row["file_id"]
        known = LoadedFile(**row, coupons=counts.pop(f"etl:{file_id}", 0), ranges=ranges.get(file_id, []))
        found[known.content_sha256] = known
    wanted = [sha256 for file in files if (sha256 := hashlib.sha256(file.content()).digest()) in found]
    coupons = {
        sha256: [LoadedCoupon(*row) for row in await connection.fetch(_COUPONS, f"etl:{found[sha256].file_id}")]
        for sha256 in wanted
    }
    read = {} if rejects is None else {sha256: _read_rejects(rejects, sha256) for sha256 in wanted}
    return LoadHoldings(found, coupons, read, sum(counts.values()))


def _read_rejects(directory: Path, content_sha256: bytes) -> list[tuple[int, bytes]]:
    path = directory / f"{content_sha256.hex()[:_DIGITS_OF_A_NAME]}.rejects.jsonl"
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [(line["line"], base64.b64decode(line["raw"])) for line in lines]
