"""The operator's commands, as an operator runs them."""

import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from bson import Timestamp

from patterns import background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.salesforce import Fault, FaultKind
from sandbox.servers.address import LOOPBACK, free_port
from services.consent_consumer.dead_letters import DeadLetter, LetterFilter, MongoDeadLetters
from services.consent_consumer.record import MASTER_OBJECT, external_id
from tests.support.consent_consumer_process import ConsentWorld, Content, master, open_consent_world
from tests.support.consent_letter_contract import some_letter
from tests.support.consent_sample import NO_UUID
from tests.support.consent_store_contract import LONG
from tests.support.eventually import eventually
from tests.support.salesforce import open_sandbox


@pytest.fixture
async def world(mongo_settings: MongoSettings, tmp_path: Path) -> AsyncIterator[ConsentWorld]:
    """A database, a Salesforce, and no consumer yet."""
    async with (
        open_mongo(background(), mongo_settings) as database,
        open_sandbox(tmp_path) as (salesforce, _),
        open_consent_world(database, mongo_settings, salesforce, tmp_path) as world,
    ):
        yield world


def letter_of(document: Content) -> DeadLetter:
    """Return a letter about a document that was made long ago."""
    event = {
        "_id": {"_data": "82"},
        "operationType": "insert",
        "clusterTime": Timestamp(1_700_000_000, 1),
        "documentKey": {"_id": document["_id"]},
        "fullDocument": document,
    }
    return some_letter(event=event)


def assert_ends_with_a_sentence(command: "subprocess.CompletedProcess[str]", beginning: str) -> None:
    """Assert that a command failed and said why in one line."""
    assert command.returncode == 1
    assert command.stdout == ""
    (line,) = command.stderr.splitlines()
    assert line.startswith(beginning)


async def test_dead_letters_are_listed_shown_and_replayed(world: ConsentWorld) -> None:
    """What Salesforce takes by now goes out of the list; what it refuses still stays, and the status says so."""
    letters = world.database.collection("consent_dead_letters")
    refused = Fault(kind=FaultKind.RECORD, code="DUPLICATES_DETECTED", external_ids=(external_id(NO_UUID), "i:1"))
    world.salesforce.faults.switch_on(refused)
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.masters.insert_many([master(NO_UUID), master(1), master(2, member_id="\x1b[31mnobody")])

        async def are_buried() -> bool:
            return await letters.count_documents({}) == 3

        await eventually(are_buried, seconds=40)
    listed = await world.command("dead-letters", "list")
    assert listed.returncode == 0
    lines = listed.stdout.splitlines()
    assert lines[-1] == "3 dead letters"
    assert any("DUPLICATES_DETECTED after 1 tries" in line for line in lines)
    wrong = next(line.split()[0] for line in lines if "WrongConsentFieldError" in line)

    shown = await world.command("dead-letters", "show", wrong)
    assert shown.returncode == 0
    assert "member_id must be a member's id" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "nobody" in shown.stdout  # it is the operator who asks for the whole event
    others = [await world.command("dead-letters", "show", line.split()[0]) for line in lines[:-1]]
    assert [each.returncode for each in others] == [0, 0, 0]
    assert any(b64encode(NO_UUID).decode() in each.stdout for each in others)

    world.salesforce.faults.clear()
    replayed = await world.command("dead-letters", "replay", "--all")
    assert replayed.returncode == 1
    assert replayed.stdout.splitlines()[-1] == "2 replayed, 1 failed"
    assert set(world.salesforce.records(MASTER_OBJECT)) == {external_id(NO_UUID), "i:1"}
    assert (await world.command("dead-letters", "list")).stdout.splitlines()[-1] == "1 dead letters"
    assert (await world.command("dead-letters", "show", "nothing")).returncode == 1


async def test_a_replay_that_cannot_reach_salesforce_leaves_the_letter_as_it_was(world: ConsentWorld) -> None:
    """The operator who tries again at once has it, with its tries and its cause, and replays it."""
    letters = MongoDeadLetters(world.database)
    letter = letter_of(master(1))
    await letters.bury([letter])
    away = await world.command("dead-letters", "replay", "--all", SALESFORCE__URL=f"http://{LOOPBACK}:{free_port()}")
    assert_ends_with_a_sentence(away, "salesforce: ")
    left = await letters.show(letter.letter_id)
    assert left is not None
    assert (left.tries, left.cause) == (letter.tries, letter.cause)

    replayed = await world.command("dead-letters", "replay", "--id", letter.letter_id)
    assert (replayed.returncode, replayed.stdout) == (0, "1 replayed, 0 failed\n")
    assert set(world.salesforce.records(MASTER_OBJECT)) == {"i:1"}


async def test_a_letter_that_cannot_be_had_is_told_with_its_reason(world: ConsentWorld) -> None:
    """One that another operator replays, one of the other stream, and one that is not there: status 1 each time."""
    letters = MongoDeadLetters(world.database)
    letter = letter_of(master(1))
    await letters.bury([letter])
    assert await letters.claim("another", LetterFilter(), None, LONG)

    held = await world.command("dead-letters", "replay", "--id", letter.letter_id)
    assert (held.returncode, held.stdout) == (1, f"{letter.letter_id} is being replayed: its claim ends within 300 s\n")
    other = await world.command("dead-letters", "replay", "--id", letter.letter_id, "--stream", "consent_detail")
    unknown = await world.command("dead-letters", "replay", "--id", "nothing")
    for answer in (other, unknown):
        assert (answer.returncode, answer.stdout) == (1, "no such dead letter\n")


async def test_a_replay_of_a_letter_without_its_document_tells_salesforce_nothing(world: ConsentWorld) -> None:
    """A document that had no room in its event lives: its letter is refused again, and marks nothing as deleted."""
    letters = MongoDeadLetters(world.database)
    letter = letter_of(master(1))
    event = {name: value for name, value in letter.event.items() if name != "fullDocument"}
    nameless = {name: value for name, value in event.items() if name != "documentKey"}  # an id of megabytes
    await letters.bury(
        [
            replace(letter, event=event, is_whole=False),
            replace(letter, event=nameless, is_whole=False, letter_id="0" * 32),
        ]
    )
    replayed = await world.command("dead-letters", "replay", "--all")
    assert (replayed.returncode, replayed.stdout.splitlines()[-1]) == (1, "0 replayed, 2 failed")
    assert replayed.stdout.count("EventTooLarge") == 2
    assert world.salesforce.records(MASTER_OBJECT) == {}


async def test_a_replayed_letter_overwrites_nothing_newer(world: ConsentWorld) -> None:
    """A letter whose document has gone on meanwhile is settled, and Salesforce keeps the newer change."""
    refused = Fault(kind=FaultKind.RECORD, code="DUPLICATES_DETECTED", external_ids=("i:1",))
    world.salesforce.faults.switch_on(refused)
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.masters.insert_one(master(1))
        await consumer.wait_event("Change dead-lettered")
        world.salesforce.faults.clear()
        await world.masters.update_one({"_id": 1}, {"$set": {"status": "withdrawn"}})
        await world.wait_agreed()
        replayed = await world.command("dead-letters", "replay", "--class", "DUPLICATES_DETECTED")
        assert replayed.stdout.splitlines()[-1] == "1 replayed, 0 failed"
    assert world.salesforce.records(MASTER_OBJECT)["i:1"].fields["Status__c"] == "withdrawn"


async def test_a_skip_is_refused_at_work_and_leaves_an_audit_line(world: ConsentWorld) -> None:
    """Only a stream that nobody runs is moved; it then begins with what comes, and who decided is written down."""
    words = ("skip", "--stream", "consent_master", "--by", "an operator", "--reason", "the oplog is gone")
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        refused = await world.command(*words)
        assert refused.returncode == 1
        assert "stop it first" in refused.stdout
        assert "is at work" in (await world.command("positions")).stdout
        await consumer.process.stop(grace_seconds=40)
    await world.masters.insert_one(master("left out"))
    assert (await world.command(*words)).returncode == 0
    shown = (await world.command("positions")).stdout
    assert "no instance is at work" in shown
    assert "an operator let consent_master skip: the oplog is gone" in shown
    async with world.consumer() as consumer:
        await consumer.wait_event("Change stream started", count=2)
        await world.masters.insert_one(master("carried"))
        await eventually(lambda: "s:carried" in world.salesforce.records(MASTER_OBJECT), seconds=40)
    assert set(world.salesforce.records(MASTER_OBJECT)) == {"s:carried"}


async def test_a_command_without_its_database_ends_with_a_sentence(world: ConsentWorld) -> None:
    """Status 1 and one line on standard error: where nobody listens, and where the password is not taken."""
    nobody = {"MONGO__HOSTS": f"{LOOPBACK}:{free_port()}", "MONGO__REPLICA_SET": ""}
    for away in (nobody, {"MONGO__PASSWORD": "another"}):
        answer = await world.command("dead-letters", "list", STARTUP_SECONDS="3", **away)
        assert_ends_with_a_sentence(answer, "mongo: ")


async def test_a_mistyped_command_is_told(world: ConsentWorld) -> None:
    """The parser's own status, 2, whatever is there."""
    assert (await world.command("dead-letters")).returncode == 2
    assert (await world.command("skip", "--stream", "consent_master")).returncode == 2
    assert (await world.command("dead-letters", "replay", "--all", "--limit", "0")).returncode == 2
