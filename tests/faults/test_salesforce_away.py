"""S3, S9 and S10: a Salesforce that wants to be left alone, is away, or takes its time."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from sandbox.salesforce import FaultKind
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_MASTER
from tests.support.consent_consumer_process import OBJECTS, master
from tests.support.consent_judge import wait_carried
from tests.support.consumer_judge import stop_and_judge
from tests.support.fault_proxy import open_fault_proxy
from tests.support.fault_report import FaultReport
from tests.support.footprint import footprint_of, judge_settled
from tests.support.salesforce_scene import open_salesforce_scene

DATE: Final = "a date in 3 s"
RETRY_AFTER_MOST_SECONDS: Final = 4.0
AWAY_SECONDS: Final = 20.0
HOT_CHANGES: Final = 500
CALLS_PER_SECOND: Final = 5.0
LATENCY_SECONDS: Final = 10.0
CALLS: Final = 2
"""How many calls of one stream may be under way."""
LEISURELY: Final = {
    "CALLS_MAX": str(CALLS),
    "SALESFORCE__CALL_TIMEOUT_SECONDS": "20",
    "SALESFORCE__TIMEOUT_SECONDS": "20",
    "GRACE_SECONDS": "45",
}


def _spared_seconds(retry_after: str | None) -> float:
    """Return for how long nobody may call, of what is asked for: nothing where that makes no sense."""
    if retry_after == DATE:
        return 2.0  # a date has whole seconds
    is_number = retry_after is not None and retry_after.isdecimal()
    return min(float(retry_after or 0), RETRY_AFTER_MOST_SECONDS) if is_number else 0.0


@pytest.mark.parametrize(
    ("kind", "retry_after"),
    [
        pytest.param(
            kind,
            retry_after,
            marks=[pytest.mark.fault("S3", f"{status}, {what}"), *([] if is_quick else [pytest.mark.thorough])],
            id=f"{status[:3]}-{what}",
        )
        for status, kind, what, retry_after, is_quick in (
            ("403 REQUEST_LIMIT_EXCEEDED", FaultKind.LIMIT, "no Retry-After", None, True),
            ("429", FaultKind.THROTTLED, "no Retry-After", None, False),
            ("429", FaultKind.THROTTLED, "Retry-After: 2", "2", False),
            ("429", FaultKind.THROTTLED, f"Retry-After: {DATE}", DATE, False),
            ("503", FaultKind.UNAVAILABLE, "no Retry-After", None, False),
            ("503", FaultKind.UNAVAILABLE, "Retry-After: 1", "1", True),
            ("503", FaultKind.UNAVAILABLE, f"Retry-After: {DATE}", DATE, False),
            ("503", FaultKind.UNAVAILABLE, "Retry-After: a day, of which 4 s are believed", "86400", False),
            ("503", FaultKind.UNAVAILABLE, "Retry-After: nonsense", "when the cows come home", False),
        )
    ],
)
async def test_salesforce_that_wants_to_be_left_alone_is(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport, kind: FaultKind, retry_after: str | None
) -> None:
    """Both streams keep away for as long as was asked for and is believed; nothing is a dead letter by it."""
    settings = {"SALESFORCE__RETRY_AFTER_MOST_SECONDS": str(RETRY_AFTER_MOST_SECONDS)}
    spared_seconds = _spared_seconds(retry_after)
    hits = 4 if spared_seconds else 12
    async with open_salesforce_scene(mongo, tmp_path) as scene, scene.consumer(**settings) as consumer:
        await scene.carry()
        began = time.monotonic()
        text = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
        spared = scene.inject(kind, retry_after=text if retry_after == DATE else retry_after)
        async with scene.members.at_work(pause_seconds=0.02):
            await spared.wait_hits(hits)
        seconds = time.monotonic() - began
        await consumer.wait_readiness(503)
        spared.end()
        fault_report.judge(await scene.finish(consumer))
        assert await scene.letters() == {}
    # Two calls, one a stream, may be under way when a pause begins: four of them have one pause between them at least.
    assert seconds >= spared_seconds
    fault_report.measure(tries=f"{60 * hits / seconds:.0f} a minute")


@pytest.mark.thorough
@pytest.mark.fault("S9", f"away for {AWAY_SECONDS:g} s under writes, then back at {CALLS_PER_SECOND:g} calls a second")
async def test_backlog_of_an_outage_drains_at_the_rate_that_salesforce_allows(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Calls beyond the rate are few, a document that changed again and again is told a few times, and all arrives."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        port = urlsplit(scene.salesforce.url).port
        assert port is not None
        async with (
            open_fault_proxy(port) as proxy,
            scene.consumer(SALESFORCE__URL=f"http://127.0.0.1:{proxy.port}") as consumer,
        ):
            await scene.members.put(CONSENT_MASTER, master("hot"))
            await scene.carry()
            idle = footprint_of(consumer.process.pid)
            proxy.refuse()
            proxy.reset()
            began = time.monotonic()
            for _ in range(HOT_CHANGES):
                await scene.members.put(CONSENT_MASTER, master("hot"))
                await scene.members.act()
            while time.monotonic() - began < AWAY_SECONDS:
                await scene.members.act()
                await asyncio.sleep(0.02)
            await consumer.wait_readiness(503)
            tries = (await consumer.metrics())['lp_consent_unavailable_total{stream="consent_master"}']
            away_seconds = time.monotonic() - began
            scene.salesforce.rate.per_second = CALLS_PER_SECOND
            scene.salesforce.counts.upsert.clear()
            began = time.monotonic()
            await proxy.listen()
            await wait_carried(scene.world, scene.members)
            seconds = time.monotonic() - began
            calls = scene.salesforce.counts.upsert
            fault_report.measure(
                tries=f"{60 * tries / away_seconds:.0f} a minute while it was away",
                drained=f"{scene.members.writes} writes in {seconds:.1f} s by {calls['200']} calls",
                refused=f"{calls['403']} calls",
            )
            await consumer.wait_readiness(200)
            fault_report.judge(await judge_settled(consumer.process.pid, idle, more=4))
            fault_report.judge(await scene.finish(consumer))
        told = sum(one.external_id == "s:hot" for one in scene.salesforce.applied())
        assert told <= HOT_CHANGES / 10
        assert await scene.letters() == {}


@pytest.mark.thorough
@pytest.mark.fault("S10", f"each call {LATENCY_SECONDS:g} s late, SIGTERM with some of them under way")
async def test_slow_salesforce_bounds_the_calls_and_a_stop_waits_for_those_in_hand(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Two calls a stream are under way, the lag grows and is told; the stop ends them, saves, and leaves the rest."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        async with scene.consumer(**LEISURELY) as consumer:
            await scene.carry()
            began = time.monotonic()
            late = scene.inject(FaultKind.SLOW, seconds=LATENCY_SECONDS)
            async with scene.members.at_work(pause_seconds=0.02):
                await late.wait_hits(2)
                lag = 'lp_consent_master_oldest_seconds{name="default"}'

                async def is_behind() -> bool:
                    return (await consumer.metrics())[lag] > LATENCY_SECONDS / 2

                await consumer.wait(is_behind)
                assert late.hits <= CALLS * len(OBJECTS) * (1 + (time.monotonic() - began) / LATENCY_SECONDS)
            ended, seconds = await stop_and_judge(consumer)
            told = len([*scene.salesforce.applied()])
        late.end()
        async with scene.consumer() as consumer:
            fault_report.judge(ended, await scene.finish(consumer))
        assert len([*scene.salesforce.applied()]) > told
        assert await scene.letters() == {}
    fault_report.measure(stopped=f"{seconds:.1f} s")
