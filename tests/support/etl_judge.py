"""Judge the ETL by the files themselves: the table, the ledger, the reject files, and what is left behind.

Whatever became of a load, the ledger says which bytes are done; the table must be what their rows alone make.
"""

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import asyncpg
import orjson

from etl.settings import Duplicates
from tests.support.etl_model import FileModel, GoodRow, Span, is_within
from tests.support.etl_process import Ended, EtlCommand
from tests.support.eventually import eventually
from tests.support.judgement import Judgement, Rule, judge, judge_end, judge_progress
from tests.support.ledger import Unit, digest, judge_units
from tests.support.reject_file import rejects_in

LAST_EVENT: Final = "Process stopped"

_CONNECT_SECONDS: Final = 10
_GONE_SECONDS: Final = 20.0
_FILES: Final = "select file_id, content_sha256, state from etl_files"
_RANGES: Final = """
select file_id, byte_start, byte_end, line_start, line_end, inserted, skipped, rejected from etl_ranges
"""
_TABLE: Final = """
select code, source, source_line, member_id, reward_id, value_cents, currency, issued_at, expires_at, status,
    redeemed_at, version
from coupons
"""
_LEFT: Final = """
select format('backend %s is %s in: %s', pid, state, left(query, 60)) as what from pg_stat_activity
where datname = current_database() and usename = 'etl'
union all
select format('temporary table %s', relname) from pg_class where relpersistence = 't' and relkind = 'r'
"""


async def judge_load(
    etl: EtlCommand,
    *files: FileModel,
    rule: Duplicates = Duplicates.FIRST,
    is_in_order: bool = True,
    directories: Collection[Path] = (),
) -> Judgement:
    """Hold table and reject files against the rows that are done (L1 to L4), and the ledger's counts as well (L5).

    Args:
        etl: whose database, and whose reject files.
        files: all that were loaded so far, each to its end or not.
        rule: of all of them.
        is_in_order: they were loaded one after the other; otherwise any of two files may have the row of a code that
            both of them bring.
        directories: where the reject files are; without, the command's own. What is in several files of one
            content counts once.
    """
    loads, table = await _fetch(etl, files)
    asked = [unit for load in loads for unit in load.kept(rule)]
    stays = dict(asked) if is_in_order and rule is Duplicates.LAST else dict(reversed(asked))
    judgement = judge_units(
        stays.items() if is_in_order else asked,
        stays.items(),
        [(row["code"], digest(list(row.values())[1:])) for row in table],
    )
    brought: set[str] = set()
    for load in loads:
        codes = {code for code, _ in load.kept(rule)}
        judgement |= load.judge_rejects(directories or [etl.rejects_directory]) | load.judge_counts(
            len(codes - brought) if is_in_order else None
        )
        brought |= codes if rule is Duplicates.FIRST else set()
    return judgement


async def judge_loaded(
    etl: EtlCommand,
    ended: Ended,
    file: FileModel,
    rule: Duplicates = Duplicates.FIRST,
    *,
    directories: Collection[Path] = (),
) -> Judgement:
    """Judge a load to its end of the only file: all of it is in the ledger, in the report, and nothing is left."""
    wanted = (3, LAST_EVENT) if file.bad else (0, LAST_EVENT)
    inserted = len(file.winners(rule))
    report = etl.report()
    progress = judge_progress(
        {
            "rows": file.rows,
            "inserted": inserted,
            "skipped": len(file.good) - inserted,
            "rejected": len(file.bad),
            "state": "loaded",
        },
        {name: report[name] for name in ("rows", "inserted", "skipped", "rejected")}
        | {"state": (await _fetch(etl, [file]))[0][0].state},
    )
    loaded = await judge_load(etl, file, rule=rule, directories=directories)
    return loaded | progress | judge_ended(ended, wanted) | await judge_leftovers(etl)


def judge_ended(ended: Ended, wanted: tuple[int, str]) -> Judgement:
    """Look at the exit status and the last line of the log (L8)."""
    return judge_end("etl", ended.status, last_event(ended), wanted=wanted)


def last_event(ended: Ended) -> str:
    """Return what the last line of a log says."""
    return next(reversed([line["event"] for line in log_lines(ended.log)]), "")


def log_lines(log: str) -> list[dict[str, Any]]:  # Any: a log field may be anything
    """Return the whole lines of a log."""
    return [orjson.loads(line) for line in log.splitlines() if line.startswith("{") and line.endswith("}")]


async def judge_leftovers(etl: EtlCommand) -> Judgement:
    """Look for backends and temporary tables, for processes, and for files that were not to stay (L6)."""
    left: list[str] = []
    connection = await asyncpg.connect(etl.postgres.url(etl.database), timeout=_CONNECT_SECONDS)

    async def are_gone() -> bool:
        left[:] = [row["what"] for row in await connection.fetch(_LEFT)]
        left.extend(await asyncio.to_thread(_left_here, etl.directory))
        return not left

    try:
        with contextlib.suppress(TimeoutError):
            await eventually(are_gone, seconds=_GONE_SECONDS, pause_seconds=0.1)
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)
    return judge(Rule.NO_LEAK, left)


async def deadlocks(etl: EtlCommand) -> int:
    """Return how many transactions the server has ended in the database because they waited for one another."""
    await etl.ask("select pg_stat_force_next_flush()")
    found = await etl.ask("select deadlocks from pg_stat_database where datname = current_database()")
    assert isinstance(found, int)
    return found


def judge_deadlocks(count: int) -> Judgement:
    """Look whether transactions waited for one another (L7): each such wait lasts a second, and costs one its work."""
    return judge(
        Rule.IN_TIME, [f"{count} transactions were ended by the server after a wait in a circle"] * bool(count)
    )


class _Load:
    """A file, and what the ledger says of it."""

    def __init__(self, file: FileModel, known: asyncpg.Record | None, ranges: Sequence[asyncpg.Record]) -> None:
        self.file = file
        self.ranges = ranges
        self.state = known["state"] if known else "unknown"
        self._source = f"etl:{known['file_id']}" if known else ""
        self._spans = [(one["byte_start"], one["byte_end"]) for one in ranges]

    def kept(self, rule: Duplicates) -> list[Unit]:
        """Return the rows that stay of those that are done, as they are to be stored."""
        return [(code, digest(self._stored(row))) for code, row in self.file.winners(rule, self._spans).items()]

    def judge_rejects(self, directories: Collection[Path]) -> Judgement:
        """Hold the reject files against the bad rows: those that are done, others only while it is loading."""
        bad = {row.byte: self._rejected(row.line, row.raw) for row in self.file.bad}
        done = [unit for byte, unit in bad.items() if is_within(byte, self._spans)]
        names = f"{self.file.sha256.hex()[:16]}.*rejects.jsonl"
        paths = [path for directory in directories for path in directory.glob(names)]
        found = [self._rejected(row.line, row.raw) for path in paths for row in rejects_in(path)]
        if len(paths) > 1:
            found = list(dict(found).items())
        return judge_units(done if self.state == "loaded" else bad.values(), done, found)

    def judge_counts(self, inserted: int | None) -> Judgement:
        """Hold each range's lines and counts against its rows, and how many codes the file brought, if known."""
        twice = [
            f"bytes from {two[0]} on were loaded twice" for one, two in pairwise(sorted(self._spans)) if two[0] < one[1]
        ]
        good, bad = ([row.byte for row in rows] for rows in (self.file.good, self.file.bad))
        wanted: dict[str, object] = {}
        found: dict[str, object] = {}
        for span, one in zip(self._spans, self.ranges, strict=True):
            name = f"bytes {span[0]} to {span[1]}"
            rejected = _count_within(bad, span)
            wanted[name] = (*self.file.lines(span), _count_within(good, span) + rejected, rejected)
            counted = one["inserted"] + one["skipped"] + one["rejected"]
            found[name] = (one["line_start"], one["line_end"], counted, one["rejected"])
        if inserted is not None:
            wanted["inserted"] = inserted
            found["inserted"] = sum(one["inserted"] for one in self.ranges)
        return judge_progress(wanted, found) | judge(Rule.NOTHING_DOUBLED, twice)

    def _stored(self, row: GoodRow) -> list[object]:
        return [self._source, row.line, *row.values, "issued", None, 1]

    def _rejected(self, line: int, raw: bytes) -> Unit:
        return f"{self.file.sha256.hex()[:8]} line {line}", digest(raw.hex())


def _count_within(ascending: Sequence[int], span: Span) -> int:
    start, end = span
    return bisect_left(ascending, end) - bisect_left(ascending, start)


async def _fetch(etl: EtlCommand, files: Sequence[FileModel]) -> tuple[list[_Load], list[asyncpg.Record]]:
    connection = await asyncpg.connect(etl.postgres.url(etl.database), timeout=_CONNECT_SECONDS)
    try:
        known = {row["content_sha256"]: row for row in await connection.fetch(_FILES)}
        ranges = await connection.fetch(_RANGES)
        table = await connection.fetch(_TABLE)
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)
    loads = []
    for file in files:
        row = known.get(file.sha256)
        loads.append(_Load(file, row, [one for one in ranges if row and one["file_id"] == row["file_id"]]))
    return loads, table


def _left_here(directory: Path) -> list[str]:
    return [
        *_processes_of(directory),
        *(f"file {path.name}" for path in directory.rglob("*.new")),
        *_spooled(directory),
    ]


def _spooled(directory: Path) -> Iterator[str]:
    spool = directory / "spool"
    if spool.is_dir():
        yield from (f"in the spool: {path.name}" for path in spool.iterdir())


def _processes_of(directory: Path) -> Iterator[str]:
    """Name the processes that were started with something of this directory, where the system shows them (Linux)."""
    mark = f"{directory}/".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark in path.read_bytes():
                yield f"process {path.parent.name}"
