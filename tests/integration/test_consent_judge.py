"""The judge of consents sees each kind of difference: a judge that finds nothing proves nothing."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from bson import Timestamp

from loyalty.consent import read_master
from patterns import background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.record import MASTER_OBJECT, deleted_record, master_record
from services.consent_consumer.store import DEAD_LETTERS, MongoConsentStore, Position
from tests.support.consent_consumer_process import ConsentWorld, Content, master, open_consent_world
from tests.support.consent_judge import Save, judge_consents, judge_positions, judge_saves
from tests.support.consent_members import ConsentMembers
from tests.support.judgement import Judgement, Rule
from tests.support.salesforce import SalesforceClient, open_sandbox

AT = Timestamp(1_000, 1)


class Scene(NamedTuple):
    """A world without a consumer: the test itself tells Salesforce what there is."""

    world: ConsentWorld
    members: ConsentMembers
    client: SalesforceClient

    async def tell(self, record: Content) -> None:
        """Have Salesforce take a record of a master."""
        response = await self.client.upsert(MASTER_OBJECT, record)
        assert response.json()[0]["success"], response.text

    async def put(self, document_id: str) -> Content:
        """Have a member give a consent, and return it."""
        document = master(document_id)
        await self.members.put(CONSENT_MASTER, document)
        return document

    async def bury(self, document: Content) -> None:
        """Have a dead letter of a document that was inserted."""
        key = {"_id": document["_id"]}
        event = {"documentKey": key, "clusterTime": AT, "operationType": "insert", "fullDocument": document}
        await self.world.database.collection(DEAD_LETTERS).insert_one({"stream": CONSENT_MASTER, "event": event})

    async def judge(self) -> Judgement:
        """Return what is found."""
        return await judge_consents(self.world, self.members)


@pytest.fixture
async def scene(mongo_settings: MongoSettings, tmp_path: Path) -> AsyncIterator[Scene]:
    """An empty world."""
    async with (
        open_mongo(background(), mongo_settings) as database,
        open_sandbox(tmp_path) as (salesforce, client),
        open_consent_world(database, mongo_settings, salesforce, tmp_path) as world,
    ):
        yield Scene(world, ConsentMembers(database), client)


def failed(judgement: Judgement) -> set[Rule]:
    """Return the rules that do not hold."""
    return {rule for rule, found in judgement.differences.items() if found}


async def test_what_has_arrived_is_in_order(scene: Scene) -> None:
    """A record like its document, and a deleted document whose record is marked, differ in nothing."""
    kept, gone = master("kept"), master("gone")
    await scene.members.put(CONSENT_MASTER, kept)
    await scene.members.put(CONSENT_MASTER, gone)
    await scene.members.delete(CONSENT_MASTER, "gone")
    await scene.tell(master_record(read_master(kept), 1))
    await scene.tell(deleted_record("gone", 2))
    judgement = await scene.judge()
    assert judgement.is_ok, judgement


async def test_what_never_arrived_is_lost(scene: Scene) -> None:
    """Also where an earlier state has arrived; its record then holds another content, too."""
    await scene.members.put(CONSENT_MASTER, master("never"))
    assert failed(await scene.judge()) == {Rule.NOTHING_LOST}
    changed = master("changed")
    await scene.members.put(CONSENT_MASTER, changed)
    await scene.tell(master_record(read_master(changed), 1))
    await scene.members.change(CONSENT_MASTER, "changed", status="withdrawn")
    assert failed(await scene.judge()) == {Rule.NOTHING_LOST, Rule.RIGHT_CONTENT}


async def test_a_mark_without_a_deletion_is_wrong_also_under_a_dead_letter(scene: Scene) -> None:
    """One that was deleted and refused when it came again is right to be marked; one that was taken then is not."""
    for document_id in ("refused", "taken"):
        await scene.tell(master_record(read_master(await scene.put(document_id)), 1))
        await scene.members.delete(CONSENT_MASTER, document_id)
        await scene.tell(deleted_record(document_id, 2))
    await scene.tell(master_record(read_master(await scene.put("taken")), 3))
    await scene.tell(deleted_record("taken", 4))
    for document_id in ("refused", "taken"):
        await scene.bury(await scene.put(document_id))
    judgement = await scene.judge()
    assert failed(judgement) == {Rule.RIGHT_CONTENT}
    assert "s:refused" not in str(judgement)


async def test_what_was_overwritten_is_wrong_and_not_lost(scene: Scene) -> None:
    """The last state did arrive, and an earlier one stands in its place."""
    first = master("one")
    await scene.members.put(CONSENT_MASTER, first)
    last = dict(first)
    await scene.members.put(CONSENT_MASTER, last)
    for document in (last, first):
        await scene.tell(master_record(read_master(document), 1))
    assert failed(await scene.judge()) == {Rule.RIGHT_CONTENT}


async def test_what_nobody_asked_for_is_invented(scene: Scene) -> None:
    """A record without a document, and a mark of deletion on a document that lives."""
    await scene.tell(master_record(read_master(master("nobody's") | {"_id": "nobody's"}), 1))
    assert failed(await scene.judge()) == {Rule.NOTHING_INVENTED}
    kept = master("kept")
    await scene.members.put(CONSENT_MASTER, kept)
    await scene.tell(deleted_record("kept", 1))
    await scene.tell(master_record(read_master(kept), 2))
    judgement = await scene.judge()
    assert len(judgement.differences[Rule.NOTHING_INVENTED]) == 2
    assert failed(judgement) == {Rule.NOTHING_INVENTED}


async def test_a_dead_letter_stands_for_the_last_state_alone(scene: Scene) -> None:
    """It is as good as a record, until the document has changed again."""
    await scene.bury(await scene.put("dead"))
    judgement = await scene.judge()
    assert judgement.is_ok, judgement
    await scene.members.change(CONSENT_MASTER, "dead", status="expired")
    assert failed(await scene.judge()) == {Rule.NOTHING_LOST}


async def test_a_position_before_the_last_event_is_behind(scene: Scene) -> None:
    """At the end of its stream it is in order; one event later it is not, nor is a stream without one."""
    store = MongoConsentStore(scene.world.database)
    assert failed(await judge_positions(scene.world)) == {Rule.PROGRESS_SAVED}
    for stream in (CONSENT_MASTER, CONSENT_DETAIL):
        await store.take_position(stream, 1)
        await store.save_position(stream, Position(await store.cluster_time(), None), 1)
    assert (await judge_positions(scene.world)).is_ok
    await scene.members.put(CONSENT_MASTER, master("late"))
    (difference,) = (await judge_positions(scene.world)).differences[Rule.PROGRESS_SAVED]
    assert CONSENT_MASTER in difference


def test_a_position_that_went_back_is_seen() -> None:
    """By its fence, its time or its token, each of its own stream alone."""
    first = Save(CONSENT_MASTER, 2, Timestamp(5, 1), "82b")
    in_order = [
        first,
        Save(CONSENT_DETAIL, 1, Timestamp(1, 1), "82a"),
        Save(CONSENT_MASTER, None, Timestamp(5, 1), "82c"),
    ]
    assert judge_saves(in_order).is_ok
    for back in (
        Save(CONSENT_MASTER, 1, None, None),
        Save(CONSENT_MASTER, None, Timestamp(4, 9), None),
        Save(CONSENT_MASTER, None, None, "82a"),
    ):
        assert failed(judge_saves([*in_order, back])) == {Rule.PROGRESS_SAVED}
