"""C6 and C7: collections and the database dropped, renamed and made anew under changes; documents of many megabytes."""

from pathlib import Path

import pytest

from sandbox.servers import MongoServer
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.store import DEAD_LETTERS
from tests.support.consent_consumer_process import ConsentWorld, master
from tests.support.consent_judge import finish_consents, judge_saves, recorded_saves
from tests.support.consent_members import ConsentMembers
from tests.support.consent_world import PATIENT, begin, open_consents
from tests.support.fault_report import FaultReport

PASSED_OVER = "An event about no document was passed over"
MEGABYTE = 1_000_000


async def _drop_and_rename(world: ConsentWorld, members: ConsentMembers) -> None:
    """Drop one collection and rename the other out of the way, and let both be made anew by the next writes."""
    async with members.dropping(CONSENT_MASTER):
        await world.masters.drop()
    await members.act_times(50)
    async with members.dropping(CONSENT_DETAIL):
        await world.details.rename("consent_detail_old", dropTarget=True)
    await members.act_times(50)


@pytest.mark.fault("C6", "three times under changes: one collection dropped, the other renamed, both made anew")
async def test_streams_go_on_over_collections_that_come_and_go(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """What comes under the old name is carried by the same process; what went with a collection is left as it was."""
    async with open_consents([mongo], tmp_path) as (world, members), recorded_saves(world) as saves:
        async with world.consumer(**PATIENT) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            await members.act_times(50)
            for _ in range(3):
                await _drop_and_rename(world, members)
            fault_report.judge(await finish_consents(world, members, consumer))
            passed_over = [line["type"] for line in consumer.log() if line["event"] == PASSED_OVER]
        assert sorted(passed_over) == ["drop"] * 3 + ["invalidate"] * 6 + ["rename"] * 3
    fault_report.judge(judge_saves(saves))


@pytest.mark.fault("C6", "the whole database dropped under changes, with positions and lease, and made anew")
async def test_a_dropped_database_is_begun_anew(mongo: MongoServer, tmp_path: Path, fault_report: FaultReport) -> None:
    """Without its positions a stream begins as the settings say; by a resync Salesforce is as the new database is."""
    async with open_consents([mongo], tmp_path) as (world, members):
        async with world.consumer(**PATIENT, START="resync") as consumer:
            await consumer.wait_event("Change stream started", count=2)
            await members.act_times(200)
            async with members.dropping(CONSENT_MASTER, CONSENT_DETAIL):
                await mongo.drop_database(world.database.name)
            await members.act_times(200)
            await consumer.wait_event("Work ended with its lease: waiting for the next")
            await consumer.wait_event("Change stream started", count=4)
            await members.act_times(50)
            fault_report.judge(await finish_consents(world, members, consumer))
        await world.wait_agreed()  # so even what went with the old database is marked


@pytest.mark.fault("C7", "documents of 10 and 15 MB with pre-images on, and one too large for any event")
async def test_an_event_that_is_too_large_is_a_dead_letter_and_no_end(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """What is large in a field that nobody uses passes; what is large in a used one is dead by its key, once."""
    async with open_consents([mongo], tmp_path) as (world, members):
        async with mongo.connect() as client:
            enabled = {"enabled": True}
            await client[world.database.name].command("collMod", CONSENT_MASTER, changeStreamPreAndPostImages=enabled)
        await begin(world)  # what is written now comes in one answer, as far as it fits
        for size in (10, 15):
            document_id = f"{size} MB unused"
            await members.put(CONSENT_MASTER, master(document_id, note="x" * size * MEGABYTE))
            await members.change(CONSENT_MASTER, document_id, note="y" * size * MEGABYTE, status="withdrawn")
        await members.act_times(20)
        await members.put(CONSENT_MASTER, master("10 MB used", policy_version="x" * 10 * MEGABYTE))
        huge_id = "x" * (3 * MEGABYTE // 2)  # it stands in an event's token (twice as long), key and document
        await members.put(CONSENT_MASTER, master(huge_id, policy_version="x" * 12 * MEGABYTE))
        for number in range(20):
            await members.put(CONSENT_MASTER, master(f"after {number}"))
        async with world.consumer(**PATIENT) as consumer:
            fault_report.judge(await finish_consents(world, members, consumer))
            letters = world.database.collection(DEAD_LETTERS)
            found = {str(one["event"]["documentKey"]["_id"])[:20]: one["error_class"] async for one in letters.find()}
        assert found == {"10 MB used": "WrongConsentFieldError", huge_id[:20]: "EventTooLarge"}
