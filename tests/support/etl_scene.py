"""Files for the faults of the ETL, and what stands between it and its database."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import asyncpg

from sandbox.coupon_file import FileRow, coupon_rows
from tests.support.etl_model import FileModel, read_model
from tests.support.etl_process import EtlCommand
from tests.support.fault_proxy import FaultProxy, open_fault_proxy

ROWS: Final = 6_000
TABLES: Final = ("coupons", "etl_files", "etl_ranges")

_TERMINATE: Final = """
select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and usename = 'etl'
"""


def some_file(etl: EtlCommand, *, rows: int = ROWS, seed: int = 5, bad_percent: float = 2) -> tuple[Path, FileModel]:
    """Write a file with bad rows, if any also the last, which has no line end; with codes that come again.

    Half of these have another amount.
    """
    *content, last = coupon_rows(rows, seed=seed, bad_percent=bad_percent, duplicate_percent=4)
    content.append(FileRow(last.raw[:-2], None) if bad_percent else FileRow(last.raw[:-1], last.code))
    path = etl.write(f"coupons-{seed}.csv", content)
    return path, read_model(path.read_bytes())


@contextlib.asynccontextmanager
async def behind_proxy(etl: EtlCommand) -> AsyncIterator[tuple[EtlCommand, FaultProxy]]:
    """Put a proxy between the ETL and its server."""
    async with open_fault_proxy(etl.postgres.port) as proxy:
        yield replace(etl, settings={**etl.settings, "POSTGRES__PORT": str(proxy.port)}), proxy


@contextlib.asynccontextmanager
async def code_taken(etl: EtlCommand, file: FileModel, row: int) -> AsyncIterator[None]:
    """Have somebody else insert a row's code and neither commit nor roll back: who brings it too must wait."""
    connection = await asyncpg.connect(etl.postgres.url(etl.database), timeout=10)
    try:
        taken = file.good[row]
        async with connection.transaction():
            columns = (
                "code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, version, source"
            )
            values = "$1, $2, $3, $4, $5, $6, $7, 'issued', 1, 'event'"
            await connection.execute(f"insert into coupons ({columns}) values ({values})", taken.code, *taken.values)  # noqa: S608 - of its own texts
            yield
            await connection.execute("rollback; begin")
    finally:
        await connection.close(timeout=10)


async def empty(etl: EtlCommand) -> None:
    """Forget all that was loaded."""
    connection = await asyncpg.connect(etl.postgres.url(etl.database), timeout=10)
    try:
        await connection.execute(f"truncate {', '.join(TABLES)}")
    finally:
        await connection.close(timeout=10)
    for path in etl.rejects_directory.glob("*"):
        path.unlink()


def contradicting(etl: EtlCommand, name: str, codes: int, random: Random) -> Path:
    """Write a file in which each code comes several times, anywhere, with any amount."""
    some = list(coupon_rows(codes, seed=3))
    rows = []
    for _ in range(3 * codes):
        fields = random.choice(some).raw.split(b",")
        fields[3] = str(random.randrange(3)).encode()
        rows.append(FileRow(b",".join(fields), fields[0].decode()))
    return etl.write(name, rows)


def with_codes_of(rows: Iterable[FileRow], others: Iterable[FileRow]) -> list[FileRow]:
    """Return the other rows under the codes of some."""
    return [FileRow(row.raw[:16] + other.raw[16:], row.code) for row, other in zip(rows, others, strict=True)]


def pair_of(etl: EtlCommand) -> tuple[EtlCommand, EtlCommand]:
    """Return the command line twice, to be run at once."""
    return etl, replace(etl, report_name="second.json")


def overwrite(path: Path) -> None:
    """Write other amounts of the same length into the second half of the file."""
    content = path.read_bytes()
    half = content.index(b"\n", len(content) // 2) + 1
    with path.open("r+b") as file:
        file.seek(half)
        file.write(content[half:].replace(b",EUR,", b",USD,"))


async def terminate(etl: EtlCommand) -> object:
    """End every connection of the ETL on the server, and return how many there were."""
    return await etl.ask(_TERMINATE)
