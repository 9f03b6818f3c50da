"""consent_consumer as a process between a real MongoDB and the Salesforce stand-in."""

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from patterns import background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.salesforce import Fault, FaultKind
from services.consent_consumer.record import DETAIL_OBJECT, MASTER_OBJECT, external_id
from tests.support.consent_consumer_process import ConsentWorld, detail, master, open_consent_world
from tests.support.consent_sample import IDS, NO_UUID
from tests.support.eventually import eventually
from tests.support.mongo_settings import patient
from tests.support.salesforce import open_sandbox
from tests.support.service_process import ServiceProcess, armed


@pytest.fixture
async def world(any_driver: MongoSettings, tmp_path: Path) -> AsyncIterator[ConsentWorld]:
    """A database, a Salesforce, and no consumer yet."""
    async with (
        open_mongo(background(), patient(any_driver)) as database,
        open_sandbox(tmp_path) as (salesforce, _),
        open_consent_world(database, any_driver, salesforce, tmp_path) as world,
    ):
        yield world


async def stop(consumer: ServiceProcess) -> None:
    """Send SIGTERM and see an orderly end."""
    consumer.process.send_signal(signal.SIGTERM)
    assert await consumer.process.wait(40) == 0
    assert "Application shutdown completed" in consumer.events()[-3:]


async def test_consents_reach_salesforce_whatever_becomes_of_them(world: ConsentWorld) -> None:
    """Inserted, changed, replaced and deleted documents of both collections are in Salesforce as they are last."""
    await world.masters.insert_one(master("before"))  # the stream begins with the changes from now on
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.masters.delete_one({"_id": "before"})
        await world.masters.insert_many([master(number) for number in range(450)])
        await world.details.insert_many([detail(f"d-{number}", number) for number in range(300)])
        await world.masters.update_many({"_id": {"$lt": 100}}, {"$set": {"status": "withdrawn"}})
        await world.masters.replace_one({"_id": 3}, master(3, channel="branch"))
        await world.details.delete_many({"_id": {"$in": ["d-1", "d-2"]}})
        await world.wait_agreed()
        assert world.salesforce.records(MASTER_OBJECT)["s:before"].fields["Deleted__c"] is True
        await stop(consumer)


async def test_a_consumer_goes_on_where_the_last_one_stopped(world: ConsentWorld) -> None:
    """What was written while none ran is carried by the next, and nothing that was settled is sent again."""
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.masters.insert_one(master(1))
        await world.wait_agreed()
        await stop(consumer)
    calls = len(list(world.salesforce.applied()))
    await world.masters.insert_one(master(2))
    await world.masters.delete_one({"_id": 1})
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.wait_agreed()
        await stop(consumer)
    assert len(list(world.salesforce.applied())) == calls + 2


async def test_a_resync_carries_what_is_there_and_marks_what_is_gone(world: ConsentWorld) -> None:
    """A first start that reads everything leaves Salesforce with what the collections hold, and follows from there."""
    await world.masters.insert_many([master(number) for number in range(250)])
    await world.details.insert_many([detail(number, number) for number in range(5)])
    async with world.consumer(START="resync", RESYNC_DOCUMENTS="100") as consumer:
        await world.wait_agreed()
        await consumer.wait_event("Change stream started", count=2)
        await stop(consumer)
    positions = world.database.collection("consent_positions")
    await positions.delete_many({})
    await world.masters.delete_many({"_id": {"$gte": 200}})
    async with world.consumer(START="resync") as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.wait_agreed()
        await world.masters.insert_one(master("later"))
        await world.wait_agreed()
        await stop(consumer)


async def test_a_resync_ends_though_salesforce_refuses_a_mark(world: ConsentWorld) -> None:
    """The record at fault is told by its own id and stays as it was; the other one is marked, and changes flow."""
    await world.masters.insert_many([master(number) for number in range(3)])
    async with world.consumer(START="resync") as consumer:
        await world.wait_agreed()
        await consumer.wait_event("Change stream started", count=2)
        await stop(consumer)
    await world.database.collection("consent_positions").delete_many({})
    await world.masters.delete_many({"_id": {"$in": [1, 2]}})
    world.salesforce.faults.switch_on(
        Fault(kind=FaultKind.RECORD, code="FIELD_CUSTOM_VALIDATION_EXCEPTION", external_ids=("i:1",))
    )
    async with world.consumer(START="resync") as consumer:
        await consumer.wait_event("Change stream started", count=2)
        records = world.salesforce.records(MASTER_OBJECT)
        assert {key: records[key].fields["Deleted__c"] for key in records} == {"i:0": False, "i:1": False, "i:2": True}
        [told] = [
            line for line in consumer.log() if line["event"] == "Salesforce will not have records marked as deleted"
        ]
        assert (told["records"], told["record_ids"]) == (1, [records["i:1"].id])
        await stop(consumer)


async def test_a_resync_leaves_the_record_of_a_document_that_was_refused(world: ConsentWorld) -> None:
    """The document is there, and a dead letter; only the record of one that is gone is marked."""
    await world.masters.insert_many([master(number) for number in range(3)])
    await world.details.insert_one(detail("d", 2))
    async with world.consumer(START="resync") as consumer:
        await world.wait_agreed()
        await consumer.wait_event("Change stream started", count=2)
        await stop(consumer)
    await world.database.collection("consent_positions").delete_many({})
    await world.masters.delete_one({"_id": 0})
    await world.masters.update_one({"_id": 1}, {"$set": {"member_id": 7}})
    await world.details.update_one({"_id": "d"}, {"$set": {"is_granted": False}})
    world.salesforce.faults.switch_on(
        Fault(kind=FaultKind.RECORD, code="DUPLICATES_DETECTED", external_ids=("i:2", "s:d"))
    )
    async with world.consumer(START="resync") as consumer:
        await consumer.wait_event("Change stream started", count=2)
        records = world.salesforce.records(MASTER_OBJECT)
        assert {key: records[key].fields["Deleted__c"] for key in records} == {"i:0": True, "i:1": False, "i:2": False}
        assert world.salesforce.records(DETAIL_OBJECT)["s:d"].fields["Deleted__c"] is False
        assert await world.database.collection("consent_dead_letters").count_documents({}) == 3
        await stop(consumer)


async def test_what_salesforce_will_not_take_is_a_dead_letter_and_the_rest_goes_on(world: ConsentWorld) -> None:
    """A document that is no consent, and a record that is refused, are kept with their events and hold nobody up."""
    refused = Fault(kind=FaultKind.RECORD, code="DUPLICATES_DETECTED", external_ids=("i:2",))
    world.salesforce.faults.switch_on(refused)
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.masters.insert_many([master(1), master(2), master(3, member_id=7), master(4)])
        letters = world.database.collection("consent_dead_letters")

        async def are_buried() -> bool:
            return await letters.count_documents({}) == 2

        await eventually(are_buried, seconds=40)
        found = {each["event"]["documentKey"]["_id"]: each["error_class"] async for each in letters.find()}
        assert found == {2: "DUPLICATES_DETECTED", 3: "WrongConsentFieldError"}
        await eventually(lambda: set(world.salesforce.records(MASTER_OBJECT)) == {"i:1", "i:4"}, seconds=40)
        await stop(consumer)


async def test_ids_of_every_type_and_huge_documents_pass(world: ConsentWorld) -> None:
    """Neither an id that Python cannot decode nor an event beyond 16 MB stops the stream; each has its record."""
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        odd = [*IDS, NO_UUID]
        await world.masters.insert_many([master(each) for each in odd])
        await world.masters.insert_one(master("huge", note="x" * 15_000_000))
        await world.masters.update_one({"_id": "huge"}, {"$set": {"note": "y" * 15_000_000, "status": "withdrawn"}})
        await world.masters.insert_one(master("last"))
        wanted = {external_id(each) for each in (*odd, "huge", "last")}
        records = world.salesforce.records(MASTER_OBJECT)

        def is_there() -> bool:
            return wanted == set(records) and records["s:huge"].fields["Status__c"] == "withdrawn"

        await eventually(is_there, seconds=60)
        await stop(consumer)


# The first two saves are those of the beginning, one a stream.
@pytest.mark.parametrize(
    ("point", "hit"), [("after-read", 2), ("before-call", 2), ("after-call", 2), ("before-save", 4), ("after-save", 4)]
)
async def test_a_consumer_that_is_killed_loses_and_doubles_nothing(world: ConsentWorld, point: str, hit: int) -> None:
    """Killed inside each window, the next one leaves Salesforce as the collections are."""
    async with world.consumer(**armed(point, hit)) as consumer:
        await consumer.wait_event("Change stream started", count=2)
        for number in range(40):
            await world.masters.insert_one(master(number))
            await world.masters.update_one({"_id": number}, {"$set": {"status": "expired"}})
        assert await consumer.process.wait(40) == 137
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.wait_agreed()
        await stop(consumer)
    assert len(world.salesforce.records(MASTER_OBJECT)) == 40


async def test_of_two_consumers_one_works_and_the_other_takes_over(world: ConsentWorld) -> None:
    """The second waits, ready, and carries on when the first one ends."""
    async with world.consumer() as first:
        await first.wait_event("Change stream started", count=2)
        async with world.consumer() as second:
            await second.wait_event("Another instance holds the lease: waiting")
            await second.wait_readiness(200)
            await world.masters.insert_one(master(1))
            await world.wait_agreed()
            assert "Change stream started" not in second.events()
            await stop(first)
            await second.wait_event("Change stream started", count=2)
            await world.masters.insert_one(master(2))
            await world.wait_agreed()
            await stop(second)
