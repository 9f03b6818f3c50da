"""S4, S6 and S7: answers that are half good, answers that never came whole, ids that are not unique."""

from pathlib import Path
from typing import Any, Final

import pytest

from sandbox.salesforce import FaultKind
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_MASTER
from services.consent_consumer.record import MASTER_OBJECT
from services.consent_consumer.store import DEAD_LETTERS
from tests.support.consent_consumer_process import master
from tests.support.consent_judge import judge_consents, replays
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.footprint import footprint_of, judge_settled
from tests.support.salesforce_scene import SalesforceScene, open_salesforce_scene
from tests.support.service_process import ServiceProcess

SPOILT: Final[dict[str, tuple[FaultKind, dict[str, Any]]]] = {  # Any: parameters of faults
    "a reset": (FaultKind.RESET, {}),
    "silence until the deadline": (FaultKind.HANG, {}),
    "half of the body": (FaultKind.HALF_BODY, {}),
    "a wrong content-length": (FaultKind.WRONG_LENGTH, {}),
    "200 with HTML": (FaultKind.HTML, {}),
    "200 with junk": (FaultKind.JUNK, {}),
    "gzip": (FaultKind.GZIP, {}),
    "500": (FaultKind.ERROR, {}),
    "502": (FaultKind.BAD_GATEWAY, {}),
    "an answer beyond the deadline": (FaultKind.SLOW, {"seconds": 2.0}),
}
IMPATIENT: Final = {"SALESFORCE__CALL_TIMEOUT_SECONDS": "1", "SALESFORCE__CONNECT_TIMEOUT_SECONDS": "1"}
CALLS: Final = 2
REFUSED: Final = {
    "invalid": "FIELD_CUSTOM_VALIDATION_EXCEPTION",
    "duplicate": "DUPLICATES_DETECTED",
    "unknown": "ENTITY_IS_IN_A_MOOD",
}
TRIES: Final = {"invalid": 1, "duplicate": 1, "unknown": 3}
PASSING: Final = {"locked": "UNABLE_TO_LOCK_ROW", "unknown-once": "ENTITY_IS_IN_A_MOOD"}
_CONNECTIONS_MORE = 4  # pools that have grown to their size


async def _wait_dead(scene: SalesforceScene, wanted: dict[str, str]) -> None:
    async def are_dead() -> bool:
        return await scene.letters() == wanted

    await eventually(are_dead, seconds=60, pause_seconds=0.05)


async def _replay_and_judge(
    scene: SalesforceScene, consumer: ServiceProcess, fault_report: FaultReport, letters: dict[str, str]
) -> None:
    """Judge with the letters there, mend Salesforce, let an operator replay them, and judge again."""
    await _wait_dead(scene, letters)
    fault_report.judge(await scene.finish(consumer))
    scene.salesforce.faults.clear()
    done = await scene.world.command("dead-letters", "replay", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(letters)} replayed, 0 failed" in done.stdout
    assert await scene.letters() == {}
    fault_report.judge(await judge_consents(scene.world, scene.members))


@pytest.mark.fault("S4", "200 whose records are stored, locked, invalid, duplicates, refused for an unknown reason")
async def test_each_record_of_an_answer_has_its_own_fate(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """What may pass is tried again, the rest is a dead letter with its code, and holds nobody up."""
    async with open_salesforce_scene(mongo, tmp_path) as scene, scene.consumer() as consumer:
        await scene.carry()
        for name, code in REFUSED.items():
            scene.inject(FaultKind.RECORD, code=code, external_ids=(f"s:{name}",))
        for name, code in PASSING.items():
            scene.inject(FaultKind.RECORD, code=code, external_ids=(f"s:{name}",), calls=CALLS)
        for name in ("fine", *REFUSED, *PASSING, "fine, too"):
            await scene.members.put(CONSENT_MASTER, master(name))
        await _wait_dead(scene, REFUSED)
        letters = scene.world.database.collection(DEAD_LETTERS).find()
        assert {one["event"]["documentKey"]["_id"]: one["tries"] async for one in letters} == TRIES
        await _replay_and_judge(scene, consumer, fault_report, REFUSED)
        stored = scene.salesforce.records(MASTER_OBJECT)
        assert {f"s:{name}" for name in ("fine", *REFUSED, *PASSING, "fine, too")} <= set(stored)
        fault_report.measure(calls=str(scene.salesforce.counts.upsert.total()))


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        pytest.param(
            *fault,
            marks=[
                pytest.mark.fault("S6", f"{what}, {CALLS} times before and after it was applied"),
                *([] if fault[0] is FaultKind.RESET else [pytest.mark.thorough]),
            ],
        )
        for what, fault in SPOILT.items()
    ],
    ids=[kind for kind, _ in SPOILT.values()],
)
async def test_call_whose_answer_never_came_whole_is_made_again_and_leaves_one_record(
    mongo: MongoServer,
    tmp_path: Path,
    fault_report: FaultReport,
    kind: FaultKind,
    parameters: dict[str, Any],  # Any: parameters of faults
) -> None:
    """Whether it was served or not: its records are there once, at their last version, and no connection is left."""
    async with open_salesforce_scene(mongo, tmp_path) as scene, scene.consumer(**IMPATIENT) as consumer:
        await scene.carry()
        idle = footprint_of(consumer.process.pid)
        for after_apply in (False, True):
            spoilt = scene.inject(kind, calls=CALLS, after_apply=after_apply, **parameters)
            async with scene.members.at_work(pause_seconds=0.02):
                await spoilt.wait_over()
            await scene.carry()
        fault_report.judge(await judge_settled(consumer.process.pid, idle, more=_CONNECTIONS_MORE))
        fault_report.judge(await scene.finish(consumer))
        assert await scene.letters() == {}
        fault_report.measure(told_again=str(replays(scene.world)))


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param(
            {"kind": FaultKind.NOT_UNIQUE, "object_type": MASTER_OBJECT},
            marks=pytest.mark.fault("S7", "300 for every call that holds such a record"),
        ),
        pytest.param(
            {
                "kind": FaultKind.RECORD,
                "code": "DUPLICATE_EXTERNAL_ID",
                "external_ids": tuple(f"s:twin-{number}" for number in range(5)),
            },
            marks=pytest.mark.fault("S7", "DUPLICATE_EXTERNAL_ID for 5 records among others"),
        ),
    ],
    ids=["call", "record"],
)
async def test_record_whose_id_is_not_unique_is_a_dead_letter_and_an_alarm(
    mongo: MongoServer,
    tmp_path: Path,
    fault_report: FaultReport,
    parameters: dict[str, Any],  # Any: parameters of faults
) -> None:
    """It is found among the others, put aside with its code, and told as an error that somebody has to look at."""
    letters = {f"twin-{number}": "DUPLICATE_EXTERNAL_ID" for number in range(5)}
    async with open_salesforce_scene(mongo, tmp_path) as scene, scene.consumer() as consumer:
        await scene.carry()
        scene.inject(**parameters)
        for name in letters:
            await scene.members.put(CONSENT_MASTER, master(name))
        await _replay_and_judge(scene, consumer, fault_report, letters)
        told = [line for line in consumer.log() if line["event"] == "An external id is not unique in Salesforce"]
        assert {line["level"] for line in told} == {"error"}
