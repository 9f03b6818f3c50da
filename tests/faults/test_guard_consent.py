"""G9 to G11: the version of a change, the result of each record, one record of a document in a call."""

from pathlib import Path
from typing import Final

import pytest

from sandbox.salesforce import FaultKind
from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_MASTER
from services.consent_consumer.record import MASTER_OBJECT
from tests.support.consent_consumer_process import master
from tests.support.consent_judge import judge_consents, judge_positions
from tests.support.consumer_judge import stop_and_judge
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, Rule
from tests.support.salesforce_scene import SalesforceScene, open_salesforce_scene

IMPATIENT: Final = {"SALESFORCE__CALL_TIMEOUT_SECONDS": "1", "SALESFORCE__CONNECT_TIMEOUT_SECONDS": "1"}
CHANGES: Final = 5
REGISTERED: Final = 'lp_consent_master_registered_total{name="default"}'
LOCKED: Final = ("locked-1", "locked-2", "locked-3")


async def _put(scene: SalesforceScene, name: str) -> None:
    await scene.members.put(CONSENT_MASTER, master(name))


async def _put_and_wait(scene: SalesforceScene, name: str) -> None:
    """Write a consent and wait until Salesforce holds it as it is now."""
    await _put(scene, name)
    document = await scene.world.masters.find_one({"_id": name})
    assert document is not None
    wanted = document["changed_at"].isoformat(timespec="milliseconds")

    def is_there() -> bool:
        record = scene.salesforce.records(MASTER_OBJECT).get(f"s:{name}")
        return record is not None and record.fields["ChangedAt__c"] == wanted

    await eventually(is_there, seconds=60)


async def _overtake(scene: SalesforceScene, without: str | None) -> Judgement:
    """Let a call arrive late, that its sender has given up: behind another try of it, and behind a newer change."""
    async with scene.consumer(without=without, **IMPATIENT) as consumer:
        await _put_and_wait(scene, "late")
        await scene.while_a_call_is_late(lambda: _put(scene, "late"), lambda: _put_and_wait(scene, "late"))
        served = scene.salesforce.counts.upsert.total()
        await eventually(lambda: scene.salesforce.counts.upsert.total() > served, seconds=60)
        ended, _ = await stop_and_judge(consumer)
    return ended | await judge_consents(scene.world, scene.members) | await judge_positions(scene.world)


@pytest.mark.fault("G9", "a call that was given up arrives behind a newer change")
async def test_call_that_arrives_late_changes_nothing(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Salesforce refuses the older version, and holds the newer one."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.judge(await _overtake(scene, None))
        assert scene.salesforce.counts.refused["FIELD_CUSTOM_VALIDATION_EXCEPTION"] > 0


@pytest.mark.fault("G9", "without the version: a call that was given up arrives behind a newer change")
async def test_without_the_version_a_late_call_overwrites_a_newer_change(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Salesforce ends with what the document was before."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.notice(await _overtake(scene, "version"), Rule.RIGHT_CONTENT)


async def _lock(scene: SalesforceScene, without: str | None) -> Judgement:
    """Let some records be locked for a while, in calls that are answered by 200."""
    async with scene.consumer(without=without) as consumer:
        external_ids = tuple(f"s:{name}" for name in LOCKED)
        scene.inject(FaultKind.RECORD, code="UNABLE_TO_LOCK_ROW", external_ids=external_ids, calls=2)
        for name in LOCKED:
            await _put(scene, name)
        await _put_and_wait(scene, "last")
        if without is None:
            return await scene.finish(consumer)
        ended, _ = await stop_and_judge(consumer)
    return ended | await judge_consents(scene.world, scene.members)


@pytest.mark.fault("G10", "records locked for a while, in calls that are answered by 200")
async def test_records_that_were_locked_arrive(mongo: MongoServer, tmp_path: Path, fault_report: FaultReport) -> None:
    """Each record's own result counts: what was locked is sent again until it is stored."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.judge(await _lock(scene, None))


@pytest.mark.fault("G10", "without a look at the results: records locked for a while, in calls answered by 200")
async def test_without_a_look_at_the_results_locked_records_are_lost(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """200 is taken for stored, and nobody sends them again."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.notice(await _lock(scene, "results"), Rule.NOTHING_LOST)


async def _crowd(scene: SalesforceScene, without: str | None) -> Judgement:
    """Let changes of one document come together in one call, while the call before is under way."""
    async with scene.consumer(without=without) as consumer:
        await _put_and_wait(scene, "first")

        async def crowd() -> None:
            for _ in range(CHANGES):
                await _put(scene, "crowded")
            await consumer.wait_metrics(**{REGISTERED: float(scene.members.writes)})

        await scene.while_a_call_is_late(lambda: _put(scene, "first"), crowd)
        await _put_and_wait(scene, "last")
        ended, _ = await stop_and_judge(consumer)
    return ended | await judge_consents(scene.world, scene.members) | await judge_positions(scene.world)


@pytest.mark.fault("G11", f"{CHANGES} changes of one document that come together")
async def test_changes_of_one_document_that_come_together_are_one_record(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """The newest stands for all of them, and Salesforce has nothing to refuse."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.judge(await _crowd(scene, None))
        assert not scene.salesforce.counts.refused


@pytest.mark.fault("G11", f"without one record a document: {CHANGES} changes of one document that come together")
async def test_without_one_record_a_document_its_changes_block_each_other(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Salesforce refuses all of them in each call that holds two, and the stream's place is held up for ever."""
    async with open_salesforce_scene(mongo, tmp_path) as scene:
        fault_report.notice(await _crowd(scene, "one-record"), Rule.PROGRESS_SAVED)
