"""consent_consumer on a backlog of changes, against the driver alone, and against what the sandbox accepts.

Each of the three runs as a process of its own, one after the other, in the same minute. The references have the machine
nearly to themselves: the driver alone shares its cores with the MongoDB server, the bare client with the sandbox. While
the consumer runs there are three that work: the server, the consumer, and the sandbox, which is Python as well; where
cores are fewer than that, all three wait for one another, which the goal takes into account.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from patterns import background
from runtime.mongo import open_mongo
from sandbox.servers import open_mongo as open_server
from services.consent_consumer.record import DETAIL_OBJECT, MASTER_OBJECT
from tests.benchmarks.consent_backlog import DETAILS, Backlog, Sandbox
from tests.benchmarks.report import Row
from tests.support.mongo_settings import open_mongo_database
from tests.support.service_process import ROOT, ServiceProcess, environment_of, open_service

PAIRS = 5
CONSENTS = 25_000
"""With three purposes each, every document inserted and then changed: 200,000 changes."""
DEADLINE_SECONDS = 300.0
POLL_SECONDS = 0.5
MEGABYTE = 1024 * 1024
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Carried:
    """One run of the consumer: its rate and its CPU over most of the run, its memory early and at its highest."""

    events_per_second: float
    cpu_us: float
    early_bytes: int
    most_bytes: int


@dataclass(frozen=True, slots=True)
class _Mark:
    at: float
    settled: float
    cpu_seconds: float
    resident_bytes: int


async def _run(module: str, sandbox: Sandbox, *arguments: object) -> list[float]:
    """Run a reference to its end, and return the numbers that it prints."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=environment_of("consent_consumer", sandbox.variables),
        check=True,
        timeout=DEADLINE_SECONDS,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [float(number) for number in done.stdout.split()]


async def _drain(backlog: Backlog) -> float:
    """Return how many events a second the driver alone reads."""
    await backlog.rewind()
    async with backlog.open_sandbox() as idle:  # for its settings: the program reads those of a whole consumer
        (seconds,) = await _run("bare_drain", idle, backlog.masters, backlog.details)
    return backlog.events / seconds


async def _fill(backlog: Backlog) -> float:
    """Return how many records a second the sandbox accepts."""
    async with backlog.open_sandbox() as sandbox:
        records, seconds = await _run("bare_upsert", sandbox, backlog.masters // 2, DETAILS)
    return records / seconds


async def _carry(backlog: Backlog, directory: Path) -> Carried:
    """Run the real consumer until it says that all is settled; Salesforce must then hold every document."""
    await backlog.rewind()
    async with (
        backlog.open_sandbox() as sandbox,
        open_service(ServiceProcess, "consent_consumer", directory, sandbox.variables) as consumer,
    ):
        await consumer.wait_readiness(200)
        marks = [await _mark(consumer)]
        give_up_at = time.monotonic() + DEADLINE_SECONDS
        while marks[-1].settled < backlog.events:
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"only {marks[-1].settled:.0f} of {backlog.events} after {DEADLINE_SECONDS:g} s")
            await asyncio.sleep(POLL_SECONDS)
            marks.append(await _mark(consumer))
        records = (await sandbox.control.counts()).records
        metrics = await consumer.metrics()
    if records != {MASTER_OBJECT: backlog.masters // 2, DETAIL_OBJECT: backlog.details // 2}:
        raise RuntimeError(f"Salesforce does not hold every document: {records}")
    if any(value for name, value in metrics.items() if name.startswith("lp_consent_dead_lettered_total")):
        raise RuntimeError("there are dead letters")
    begin, end = next(mark for mark in marks if mark.settled >= backlog.events * 0.05), marks[-1]
    events = end.settled - begin.settled
    early = max(mark.resident_bytes for mark in marks if mark.settled <= backlog.events * 0.2 or mark is begin)
    return Carried(
        events / (end.at - begin.at),
        (end.cpu_seconds - begin.cpu_seconds) / events * 1e6,
        early,
        max(mark.resident_bytes for mark in marks),
    )


async def _mark(consumer: ServiceProcess) -> _Mark:
    metrics = await consumer.metrics()
    settled = sum(value for name, value in metrics.items() if name.startswith("lp_consent_settled_total"))
    process = Path(f"/proc/{consumer.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    user, system = (process / "stat").read_text().rpartition(")")[2].split()[11:13]
    return _Mark(time.monotonic(), settled, (int(user) + int(system)) / _TICKS_PER_SECOND, pages * _PAGE_BYTES)


async def measure(scale: float) -> list[Row]:
    """Plant the backlog once, then run both references and the consumer in alternation."""
    drained: list[float] = []
    filled: list[float] = []
    carried: list[Carried] = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with (
            open_server() as server,
            open_mongo_database(server) as settings,
            open_mongo(background(), settings) as database,
        ):
            backlog = Backlog(database, settings, directory, consents=max(200, round(CONSENTS * scale)))
            await backlog.plant()
            for _ in range(PAIRS):
                drained.append(await _drain(backlog))
                filled.append(await _fill(backlog))
                carried.append(await _carry(backlog, directory))
    ratios = [one.events_per_second / min(two) for one, *two in zip(carried, drained, filled, strict=True)]
    growth = [one.most_bytes / one.early_bytes for one in carried]
    rate = statistics.median(one.events_per_second for one in carried)
    cpu_us = statistics.median(one.cpu_us for one in carried)
    return [
        Row(
            "consent_consumer: rate against the slower of the driver alone and the sandbox's full calls",
            statistics.median(ratios),
            ">= 0.5",
            f"{rate:,.0f} changes/s, {cpu_us:.0f} us of CPU each, against {statistics.median(drained):,.0f} read by the"
            f" driver alone and {statistics.median(filled):,.0f} records/s accepted; "
            f"ratios {min(ratios):.2f} to {max(ratios):.2f}",
        ),
        Row(
            f"consent_consumer: highest memory with {backlog.events:,} changes waiting"
            " against that in their first fifth",
            statistics.median(growth),
            "<= 1.25",
            f"at most {max(one.most_bytes for one in carried) / MEGABYTE:.0f} MB resident",
        ),
    ]


def run(scale: float = 1.0) -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure(scale))
