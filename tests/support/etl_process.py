"""Run the ETL's command as a process of its own, as an operator would."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from sandbox.coupon_file import HEADER, FileRow
from sandbox.servers import PostgresServer
from tests.support.service_process import environment_of, postgres_variables

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 60.0
NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    status: int
    output: str
    log: str


class Load:
    """A `load` that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._log = b""

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def is_frozen(self) -> bool:
        """Tell whether it has stopped itself at a point."""
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].startswith("T")

    async def wait_event(self, event: str, *, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until its log says this, from where the last such wait ended."""
        assert self.process.stderr is not None
        async with asyncio.timeout(seconds):
            while line := await self.process.stderr.readline():
                self._log += line
                if f'"{event}"'.encode() in line:
                    return
        raise AssertionError(f"it ended without {event!r}: {self._log.decode()}")

    async def end(self, *, seconds: float = DEADLINE_SECONDS) -> Ended:
        """Wait for its end."""
        async with asyncio.timeout(seconds):
            output, log = await self.process.communicate()
        assert self.process.returncode is not None
        return Ended(self.process.returncode, output.decode(), (self._log + log).decode())


@dataclass(frozen=True, slots=True)
class EtlCommand:
    """The command line of the ETL, on one database, with its files in one directory.

    Attributes:
        settings: variables of every command, without their prefix.
        without: the guard that is taken out.
        under: what the command runs under, such as strace.
        report_name: of the report's file, of which two processes at once would keep one.
    """

    postgres: PostgresServer
    database: str
    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    without: str | None = None
    under: tuple[str, ...] = ()
    report_name: str = "report.json"

    @property
    def rejects_directory(self) -> Path:
        """Where each load keeps its reject files."""
        return self.directory / "rejects"

    @property
    def report_path(self) -> Path:
        """Where each load writes its report."""
        return self.directory / self.report_name

    def report(self) -> dict[str, Any]:
        """Return the report of the last load's first file."""
        found: dict[str, Any] = orjson.loads(self.report_path.read_bytes())["files"][0]
        return found

    def write(self, name: str, rows: list[FileRow]) -> Path:
        """Write a file with a header and rows."""
        path = self.directory / name
        path.write_bytes(HEADER + b"".join(row.raw for row in rows))
        return path

    @asynccontextmanager
    async def start(
        self, *arguments: object, variables: Mapping[str, str] = NOTHING
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start a command; it is killed if it still runs on leaving."""
        own = postgres_variables(self.postgres, self.database, "etl")
        module = ("etl",) if self.without is None else ("tests.support.unguarded_etl", "--without", self.without)
        process = await asyncio.create_subprocess_exec(
            *self.under,
            sys.executable,
            "-m",
            *module,
            *map(str, arguments),
            cwd=ROOT,
            env=environment_of("etl", {**own, **self.settings, **variables}),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, *arguments: object, content: bytes = b"", variables: Mapping[str, str] = NOTHING) -> Ended:
        """Run a command to its end."""
        async with self.start(*arguments, variables=variables) as process, asyncio.timeout(DEADLINE_SECONDS):
            output, log = await process.communicate(content)
        assert process.returncode is not None
        return Ended(process.returncode, output.decode(), log.decode())

    async def load(self, *arguments: object, content: bytes = b"", variables: Mapping[str, str] = NOTHING) -> Ended:
        """Run `load` with a report and reject files in the directory."""
        return await self.run("load", *arguments, *self._places, content=content, variables=variables)

    @asynccontextmanager
    async def loading(self, *arguments: object, variables: Mapping[str, str] = NOTHING) -> AsyncIterator[Load]:
        """Start a `load` as `load` does; it is killed if it still runs on leaving."""
        async with self.start("load", *arguments, *self._places, variables=variables) as process:
            yield Load(process)

    @property
    def _places(self) -> tuple[object, ...]:
        return "--report", self.report_path, "--rejects-directory", self.rejects_directory

    async def ranges(self) -> int:
        """Return how many batches the ledger has."""
        found = await self.ask("select count(*) from etl_ranges")
        assert isinstance(found, int)
        return found

    async def rows(self) -> int:
        """Return how many rows the ledger has."""
        found = await self.ask("select coalesce(sum(inserted + skipped + rejected), 0)::bigint from etl_ranges")
        assert isinstance(found, int)
        return found

    async def is_waiting_for_lock(self, *, at_least: int = 1) -> bool:
        """Tell whether so many connections of the ETL wait for somebody's lock."""
        found = await self.ask(
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and usename = 'etl' and wait_event_type = 'Lock'"
        )
        assert isinstance(found, int)
        return found >= at_least

    async def copies_under_way(self, *, at_least: int = 1) -> bool:
        """Tell whether the server is in so many COPY."""
        found = await self.ask("select count(*) from pg_stat_progress_copy where datname = current_database()")
        assert isinstance(found, int)
        return found >= at_least

    async def ask(self, sql: str, *arguments: object) -> object:
        """Ask the database one thing, as its superuser."""
        connection = await asyncpg.connect(self.postgres.url(self.database), timeout=10)
        try:
            return await connection.fetchval(sql, *arguments)
        finally:
            await connection.close(timeout=10)

    async def stored(self) -> dict[str, int]:
        """Return the coupons that are stored: their codes, and the lines that they came from."""
        connection = await asyncpg.connect(self.postgres.url(self.database), timeout=10)
        try:
            rows = await connection.fetch("select code, source_line from coupons")
        finally:
            await connection.close()
        assert len({row["code"] for row in rows}) == len(rows)
        return {row["code"]: row["source_line"] for row in rows}


def first_lines(rows: list[FileRow]) -> dict[str, int]:
    """Return each good code with the line of its first row, as `--duplicates first` has it."""
    found: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        if row.code is not None:
            found.setdefault(row.code, line)
    return found


def last_lines(rows: list[FileRow]) -> dict[str, int]:
    """Return each good code with the line of its last row, as `--duplicates last` has it."""
    return {row.code: line for line, row in enumerate(rows, start=2) if row.code is not None}


def bad_lines(rows: list[FileRow]) -> list[int]:
    """Return the lines of the bad rows."""
    return [line for line, row in enumerate(rows, start=2) if row.code is None]
