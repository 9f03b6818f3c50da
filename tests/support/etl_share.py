"""Several processes of the ETL that load one file together."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson

from tests.support.etl_process import NOTHING, EtlCommand, Load
from tests.support.eventually import eventually

PART_BYTES: Final = 4_096
SETTINGS: Final[Mapping[str, str]] = {"SHARE__PART_BYTES": str(PART_BYTES), "SHARE__LOOK_SECONDS": "0.05"}
"""Small parts."""
IMPATIENT: Final[Mapping[str, str]] = {
    "SHARE__LEASE_SECONDS": "1",
    "POSTGRES__IDLE_IN_TRANSACTION_SECONDS": "1",
    "POSTGRES__LOCK_TIMEOUT_SECONDS": "2",
    "POSTGRES__STATEMENT_TIMEOUT_SECONDS": "3",
}
"""Little patience with whoever does not go on."""

_DEADLINE_SECONDS: Final = 90.0
CLAIMANTS: Final = """
select coalesce(array_agg(distinct pid), '{}') from pg_locks
where locktype = 'advisory' and objsubid = 2 and granted
    and database = (select oid from pg_database where datname = current_database())
"""
"""Which sessions have a part in hand."""


class Sharer(Load):
    """One process that loads parts of a file."""

    def __init__(self, process: asyncio.subprocess.Process, report_path: Path) -> None:
        super().__init__(process)
        self._report_path = report_path

    def report(self) -> dict[str, Any]:
        """Return what it reported of the file."""
        found: dict[str, Any] = orjson.loads(self._report_path.read_bytes())["files"][0]
        return found


@asynccontextmanager
async def open_sharer(
    etl: EtlCommand, path: Path, name: str, *arguments: object, variables: Mapping[str, str] = NOTHING
) -> AsyncIterator[Sharer]:
    """Start a process that loads parts of a file; it is killed if it still runs on leaving."""
    report_path = etl.directory / f"{name}.json"
    own = ("--share", "--report", report_path, "--rejects-directory", etl.rejects_directory)
    async with etl.start("load", path, *own, *arguments, variables={**SETTINGS, **variables}) as process:
        yield Sharer(process, report_path)


@asynccontextmanager
async def open_sharers(
    etl: EtlCommand,
    path: Path,
    *arguments: object,
    variables: Sequence[Mapping[str, str]],
    signals: Sequence[signal.Signals] = (),
) -> AsyncIterator[list[Sharer]]:
    """Start a process for each of some variables, each of which has a part in hand before any loads a batch.

    The first ones get their signals then.
    """
    async with AsyncExitStack() as stack:
        connection = await asyncpg.connect(etl.postgres.url(etl.database), timeout=10)
        stack.push_async_callback(connection.close, timeout=10)
        async with connection.transaction():
            await connection.execute("lock table etl_ranges in share mode")
            sharers = [
                await stack.enter_async_context(open_sharer(etl, path, f"sharer-{n}", *arguments, variables=own))
                for n, own in enumerate(variables)
            ]

            seen: set[int] = set()  # one that is frozen at once may lose its part before another has one

            async def have_parts() -> bool:
                assert all(one.process.returncode is None for one in sharers)
                seen.update(await connection.fetchval(CLAIMANTS))
                return len(seen) >= len(sharers)

            await eventually(have_parts, seconds=_DEADLINE_SECONDS, pause_seconds=0.05)
            for sharer, number in zip(sharers, signals, strict=False):
                sharer.send_signal(number)
        yield sharers


def is_stopped(pid: int) -> bool:
    """Tell whether a process is frozen (Linux)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
