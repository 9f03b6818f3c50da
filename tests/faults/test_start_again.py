"""Everything restarted in order, in any order, while members go on (X9)."""

import secrets
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from sandbox.instance import Service
from sandbox.system import System
from tests.support.fault_report import FaultReport
from tests.support.flow import Flow, open_flow
from tests.support.judgement import judge_time

ROUNDS = 3
RATE = 20.0
POSTGRES, MONGO = "Postgres", "MongoDB"
PARTS = (POSTGRES, MONGO, *Service)
BACK_SECONDS = 60.0


async def _restart(flow: Flow[System], part: str) -> float:
    """Restart one part in order; return how long it took until everything was ready again."""
    began = time.monotonic()
    if part == POSTGRES:
        await flow.system.postgres.restart()
    elif part == MONGO:
        assert flow.system.mongo_servers is not None
        await flow.system.mongo_servers.mongo.stop()
        await flow.system.mongo_servers.mongo.start()
    else:
        await flow.system.replace(flow.instance(Service(part)))
    await flow.wait_all_ready(BACK_SECONDS)
    return time.monotonic() - began


@pytest.mark.thorough
@pytest.mark.fault("X9", f"both databases and every service restarted, {ROUNDS} times in a random order, under 20/s")
async def test_orderly_restart_of_everything_breaks_no_promise(tmp_path: Path, fault_report: FaultReport) -> None:
    """Whatever is restarted after what, nothing promised is lost; only a database costs requests, which are repeated.

    The embedded broker is left out: it keeps everything in memory, so its restart loses what was not consumed yet.
    """
    seed = secrets.randbits(32)
    print(f"order seed {seed}")  # noqa: T201 - shown when the test fails
    random = Random(seed)
    slowest = 0.0
    failed: Counter[str] = Counter()
    async with open_flow(tmp_path, rate=RATE) as flow:
        await flow.wait_requests(60)
        for _ in range(ROUNDS):
            for part in random.sample(PARTS, k=len(PARTS)):
                before = flow.traffic.statistics().failed
                seconds = await _restart(flow, part)
                fault_report.judge(judge_time(f"the restart of {part}", seconds, at_most=BACK_SECONDS))
                slowest = max(slowest, seconds)
                await flow.wait_requests(40)
                failed[part] += flow.traffic.statistics().failed - before
        verdict, judgement = await flow.judgement(failures_allowed=True)
        fault_report.judge(judgement)
    assert set(+failed) <= {POSTGRES, MONGO}, f"the restart of a service failed requests: {failed}"
    fault_report.measure(failed=f"{failed.total()} of {verdict.requests} requests", slowest_restart=f"{slowest:.1f} s")
