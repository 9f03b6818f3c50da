"""S1 and S2: tokens that end in the middle of calls, an endpoint that gives none, access that was withdrawn."""

import time
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox.salesforce import Endpoint, FaultKind
from sandbox.servers import MongoServer
from tests.support.consumer_judge import stop_and_judge
from tests.support.fault_report import FaultReport
from tests.support.salesforce_scene import open_salesforce_scene

EXPIRIES: Final = 10
SICK_TOKENS: Final[dict[FaultKind, dict[str, Any]]] = {  # Any: parameters of faults
    FaultKind.ERROR: {"calls": 2},
    FaultKind.JUNK: {"calls": 2},
    FaultKind.HTML: {"calls": 2},
    FaultKind.HALF_BODY: {"calls": 2},
    FaultKind.RESET: {"calls": 2},
    FaultKind.HANG: {"calls": 2},
    FaultKind.SLOW: {"calls": 1, "seconds": 1.0},  # a late token is a token
    FaultKind.GZIP: {"calls": 1},
}
IMPATIENT: Final = {"SALESFORCE__CALL_TIMEOUT_SECONDS": "2", "SALESFORCE__CONNECT_TIMEOUT_SECONDS": "2"}
PAUSE_SECONDS: Final = 1.0
PAUSES: Final = 4


@pytest.mark.fault("S1", f"every token taken back in the middle of calls, {EXPIRIES} times")
async def test_token_that_ends_in_the_middle_of_calls_is_replaced_once(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """However many calls are refused by it, each end of a token costs one new one, and nothing else."""
    async with open_salesforce_scene(mongo, tmp_path) as scene, scene.consumer() as consumer:
        await scene.carry()
        counts = scene.salesforce.counts
        issued = counts.tokens_issued
        for _ in range(EXPIRIES):
            async with scene.members.at_work():
                await scene.inject(FaultKind.EXPIRED, calls=1).wait_over()
            await scene.carry()
        fault_report.judge(await scene.finish(consumer))
        assert counts.tokens_issued - issued == EXPIRIES
        assert await scene.letters() == {}
        fault_report.measure(tokens=str(EXPIRIES), calls_refused=str(counts.upsert["401"]))


@pytest.mark.fault(
    "S1", "instead of a token 500, junk, HTML, half a body, a reset, silence, each twice; one late, one in gzip"
)
async def test_endpoint_that_gives_no_token_is_waited_for(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whatever comes instead of a token makes a pause, and nothing is a dead letter by it."""
    async with open_salesforce_scene(mongo, tmp_path) as scene, scene.consumer(**IMPATIENT) as consumer:
        await scene.carry()
        for kind, parameters in SICK_TOKENS.items():
            sick = scene.inject(kind, endpoint=Endpoint.TOKEN, **parameters)
            scene.salesforce.tokens.revoke_all()
            async with scene.members.at_work(pause_seconds=0.02):
                await sick.wait_over()
            await scene.carry()
        fault_report.judge(await scene.finish(consumer))
        assert await scene.letters() == {}


@pytest.mark.parametrize(
    ("kind", "parameters", "tries_a_pause"),
    [
        pytest.param(*given, marks=pytest.mark.fault("S2", f"{what}, SIGTERM, a new start when it is mended"))
        for what, *given in (
            ("credentials refused by 400", FaultKind.DENIED, {"endpoint": Endpoint.TOKEN, "status": 400}, 1),
            ("credentials refused by 401", FaultKind.DENIED, {"endpoint": Endpoint.TOKEN, "status": 401}, 1),
            ("every new token refused", FaultKind.EXPIRED, {}, 4),  # two streams, each by two tokens
        )
    ],
    ids=["400", "401", "new-tokens"],
)
async def test_access_that_was_withdrawn_stops_the_pushing_and_loses_no_place(
    mongo: MongoServer,
    tmp_path: Path,
    fault_report: FaultReport,
    kind: FaultKind,
    parameters: dict[str, Any],  # Any: parameters of faults
    tries_a_pause: int,
) -> None:
    """It is red and asks seldom, ends in order, and the next one carries all that came meanwhile."""
    settings = {"SALESFORCE__DENIED_PAUSE_SECONDS": str(PAUSE_SECONDS), "SALESFORCE__BACKOFF_FIRST_SECONDS": "1"}
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        async with scene.consumer(**settings) as consumer:
            await scene.carry()
            began = time.monotonic()
            withdrawn = scene.inject(kind, **parameters)
            scene.salesforce.tokens.revoke_all()
            async with scene.members.at_work(pause_seconds=0.02):
                await withdrawn.wait_hits(PAUSES * tries_a_pause)
            seconds, tries = time.monotonic() - began, withdrawn.hits
            await consumer.wait_readiness(503)
            ended, _ = await stop_and_judge(consumer)
        withdrawn.end()
        async with scene.consumer(**settings) as consumer:
            fault_report.judge(ended, await scene.finish(consumer))
        assert await scene.letters() == {}
    assert tries <= tries_a_pause * (1 + seconds / (PAUSE_SECONDS / 2))  # half of it may be left out by chance
    fault_report.measure(tries=f"{60 * tries / seconds:.0f} a minute at a pause of {PAUSE_SECONDS:g} s")
