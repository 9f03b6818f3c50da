"""The network between all services and their databases, hurt at random under members' traffic."""

import asyncio
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

import pytest

from sandbox.instance import COUPON_FLOW
from sandbox.seed import make_seed, plant
from sandbox.system import open_system
from tests.support.fault_proxy import FaultProxy, open_fault_proxy
from tests.support.fault_report import FaultReport
from tests.support.flow import MEMBERS, POINTS, flow_on
from tests.support.judgement import judge_time
from tests.support.seeds import seeded

HURTS: Final = 20
PAUSE_SECONDS: Final = 1.0
BACK_SECONDS: Final = 60.0


def hurt(proxy: FaultProxy, random: Random) -> str:
    """Do one thing to the network, in one direction; return what it was."""
    way = random.choice([proxy.up, proxy.down])
    kind = random.choice(["delay", "crumbs", "cut", "reset", "reset in a message", "black hole", "half close"])
    match kind:
        case "delay":
            way.delay_seconds, way.jitter_seconds = 0.02, 0.1
        case "crumbs":
            way.slice_bytes = random.choice([1, 2, 7])
        case "cut":
            proxy.cut()
        case "reset":
            proxy.reset()
        case "reset in a message":
            way.reset_after(random.randrange(1, 3_000))
        case "black hole":
            way.swallow()
        case "half close":
            proxy.half_close(way)
    return kind


def heal(proxy: FaultProxy) -> None:
    """Let everything pass again as it comes."""
    for way in (proxy.up, proxy.down):
        way.delay_seconds = way.jitter_seconds = 0.0
        way.slice_bytes = None
        way.restore()


@pytest.mark.thorough
@pytest.mark.fault("H12", f"network of all services to their databases: {HURTS} faults at random under traffic")
async def test_platform_behind_a_bad_network_keeps_every_promise(tmp_path: Path, fault_report: FaultReport) -> None:
    """Whatever the network does for half a minute, every redemption has its one coupon and nothing stays behind."""
    random = seeded("network")
    members = make_seed(MEMBERS, POINTS)
    async with open_system(tmp_path, services=COUPON_FLOW) as system, open_fault_proxy(system.postgres.port) as proxy:
        await plant(members, system.rewards_url)
        await asyncio.gather(
            *(system.start(service, {f"{service.upper()}_POSTGRES__PORT": str(proxy.port)}) for service in COUPON_FLOW)
        )
        async with flow_on(system, tmp_path, members, rate=20) as flow:
            await flow.wait_requests(60)
            kinds: Counter[str] = Counter()
            for _ in range(HURTS):
                kinds[hurt(proxy, random)] += 1
                await asyncio.sleep(random.uniform(0.5, 1.5) * PAUSE_SECONDS)
                if random.random() < 0.5:
                    heal(proxy)
            heal(proxy)
            began = asyncio.get_running_loop().time()
            await flow.wait_all_ready()
            seconds = asyncio.get_running_loop().time() - began
            await flow.wait_requests(100)
            verdict, judgement = await flow.judgement(failures_allowed=True)
    fault_report.judge(judgement, judge_time("being ready again", seconds, at_most=BACK_SECONDS))
    fault_report.measure(
        ready_again=f"{seconds:.1f} s",
        failed_requests=str(verdict.failed_requests),
        hurts=", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items())),
    )
