"""Documents that are no consents: each is a dead letter, and the stream goes on behind it."""

import signal
from pathlib import Path

import pytest

from patterns import background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from sandbox.probe import probe
from services.consent_consumer.record import DETAIL_OBJECT, MASTER_OBJECT, external_id
from tests.bad_input.bson_documents import GOOD_MASTER, ROWS
from tests.bad_input.http_row import CANARY
from tests.bad_input.log_trace import faults_in
from tests.support.consent_consumer_process import ConsentWorld, master, open_consent_world
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge, judge_end
from tests.support.salesforce import open_sandbox

SECONDS = 100.0
NAMES = {f"odd-{number}": row for number, row in enumerate(ROWS)}
DEAD = {name: row.error.__name__ for name, row in NAMES.items() if row.error is not None}
CARRIED = {external_id(name) for name, row in NAMES.items() if row.error is None}
GOOD = {external_id(f"good-{number}") for number in range(len(ROWS))}


async def _write(world: ConsentWorld) -> None:
    """Write every row, then touch it so that its event comes twice, each time with a good document behind it."""
    await world.masters.insert_one(master(GOOD_MASTER))
    for number, (name, row) in enumerate(NAMES.items()):
        collection = world.database.collection(row.collection)
        await collection.insert_one({"_id": name, **row.document})
        await world.masters.insert_one(master(f"good-{number}"))
        await collection.update_one({"_id": name}, {"$set": {"touched": True}})


async def _letters(world: ConsentWorld) -> dict[str, str]:
    """Return the class of each dead letter's error by the document, and see that no cause tells a value."""
    letters = world.database.collection("consent_dead_letters")
    found: dict[str, str] = {}
    async for letter in letters.find({}, {"event.documentKey": 1, "error_class": 1, "cause": 1}):
        assert CANARY not in letter["cause"].lower()
        name, error_class = letter["event"]["documentKey"]["_id"], letter["error_class"]
        assert found.setdefault(name, error_class) == error_class
    return found


def _records(world: ConsentWorld) -> set[str]:
    return {key for kind in (MASTER_OBJECT, DETAIL_OBJECT) for key in world.salesforce.records(kind)}


@pytest.mark.fault("B3", "every odd document of both collections, twice, each between two good ones")
async def test_all_odd_documents_become_dead_letters_and_harm_no_consent(
    mongo_settings: MongoSettings, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Each that is no consent is kept with its class and told without its value; all others reach Salesforce."""
    wanted = GOOD | CARRIED | {external_id(GOOD_MASTER)}
    async with (
        open_mongo(background(), mongo_settings) as database,
        open_sandbox(tmp_path) as (salesforce, _),
        open_consent_world(database, mongo_settings, salesforce, tmp_path) as world,
        world.consumer() as consumer,
    ):
        await consumer.wait_event("Change stream started", count=2)
        await _write(world)

        async def is_done() -> bool:
            return wanted <= _records(world) and (await _letters(world)).keys() >= DEAD.keys()

        await eventually(is_done, seconds=SECONDS, pause_seconds=0.2)
        assert (await probe(f"{consumer.admin_url}/livez"))[0] == 200
        await consumer.wait_readiness(200)
        consumer.process.send_signal(signal.SIGTERM)
        status = await consumer.process.wait(40)
        last, log = consumer.events()[-1], consumer.process.log.read_bytes()
        letters, records = await _letters(world), _records(world)
    other = [f"{NAMES[name].name}: {letters[name]}" for name in DEAD if letters[name] != DEAD[name]]
    fault_report.judge(
        judge(Rule.NOTHING_LOST, sorted(wanted - records)),
        judge(Rule.NOTHING_INVENTED, [*sorted(records - wanted), *sorted(letters.keys() - DEAD), *faults_in(log)]),
        judge(Rule.RIGHT_CONTENT, other),
        judge_end("consent_consumer", status, last, wanted=(0, "Process stopped")),
    )
    fault_report.measure(documents=str(2 * len(ROWS)))
