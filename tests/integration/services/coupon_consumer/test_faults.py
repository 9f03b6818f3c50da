"""What the consumer does while its servers are away, its input is poison, or an operator moves its place."""

import asyncio
import json
import time
from uuid import uuid4

import asyncpg
import pytest

from tests.support.consumer_judge import judge_world, stop_and_judge
from tests.support.coupon_consumer_process import run_command
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import RawRecord, cancelled, produce, record_of, some_event
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.foreign_producer import produce_with_header
from tests.support.servers import make_topic_anew

POISON = [
    (RawRecord(None, b"0123456789ABCDEF"), "TombstoneError"),
    (RawRecord(b"", b"0123456789ABCDEF"), "EmptyPayloadError"),
    (RawRecord(b"x" * 20_000, b"0123456789ABCDEF"), "OversizedError"),
    (RawRecord(b"\xff\x00{", b"0123456789ABCDEF", headers=[("a", b"\xff"), ("a", b"2")]), "NotJsonError"),
    (RawRecord(b'{"schema_version":9}', b"0123456789ABCDEF"), "UnknownSchemaVersionError"),
    (RawRecord(b'{"schema_version":1,"type":"coupon.eaten"}', b"0123456789ABCDEF"), "UnknownTypeError"),
    (RawRecord(b'{"schema_version":1,"type":"coupon.issued"}', b"0123456789ABCDEF"), "WrongFieldError"),
    (RawRecord(record_of(some_event()).value, None), "MissingKeyError"),
    (RawRecord(record_of(some_event()).value, b"0123456789ABCDEF"), "ContradictingKeyError"),
]


@pytest.mark.fault("K10", "1 % of poison of nine kinds among events that come three times")
async def test_poison_and_duplicates_among_good_events_cost_nothing_else(
    world: World, fault_report: FaultReport
) -> None:
    """Each poison record is kept with its class and raw bytes; each coupon is stored once whatever came how often."""
    issued = [some_event() for _ in range(500)]
    events = [*issued, *(cancelled(event) for event in issued[::7])]
    poison = [record for record, _ in POISON] * 2
    await world.produce(events, copies=3, poison=poison)
    async with world.consumer() as service:
        await world.wait_stored()
        await service.wait_settled(dead_lettered=len(poison))
        metrics = await service.metrics()
        assert metrics['lp_consumer_records_total{outcome="stored"}'] >= len(issued)
        assert metrics['lp_consumer_records_total{outcome="skipped"}'] >= 2 * len(events)
        await service.wait_readiness(200)
    fault_report.judge(await judge_world(world))
    connection = await asyncpg.connect(world.postgres.url(world.database), timeout=10)
    try:
        rows = await connection.fetch("select error_class, payload, key, headers from dead_letters")
    finally:
        await connection.close()
    found = sorted((row["error_class"], row["payload"] or b"", row["key"] or b"") for row in rows)
    assert found == sorted((name, record.value or b"", record.key or b"") for record, name in POISON * 2)
    headers = {row["headers"] for row in rows if row["error_class"] == "NotJsonError"}
    assert [json.loads(text) for text in headers] == [[["a", "/w=="], ["a", "Mg=="]]]
    assert "x" * 100 not in service.process.log.read_text()


async def test_poison_whose_header_names_are_no_text_is_kept_without_them(world: World) -> None:
    """The process survives what only other clients can write, and goes on behind it."""
    where = (world.kafka.bootstrap, world.topic)
    await asyncio.to_thread(produce_with_header, *where, name=b"\xff\xfe", value=b"{bad", key=b"K")
    world.records += 1
    await world.produce([some_event() for _ in range(20)])
    async with world.consumer() as service:
        await world.wait_stored()
        await service.wait_settled(stored=20, dead_lettered=1)
    await world.assert_exact(dead_letters=1)
    assert await world.fetch_value("select payload from dead_letters where headers = '[]'") == b"{bad"
    assert "a name is not UTF-8" in str(await world.fetch_value("select error_detail from dead_letters"))


@pytest.mark.timeout(90)
@pytest.mark.fault("K10", "100 poisonous records in a row")
async def test_flood_of_poison_stops_the_consumer_and_a_healthy_batch_frees_it(
    world: World, fault_report: FaultReport
) -> None:
    """It is not ready and takes little while the flood lasts; afterwards everything good is there, with no restart."""
    settings = {
        "BREAKER__RECORDS_MIN": "20",
        "BREAKER__PAUSE_FIRST_SECONDS": "2",
        "BREAKER__PAUSE_MOST_SECONDS": "2",
        "BATCH_RECORDS": "50",
        "CONSUMER__CHUNK_RECORDS": "10",
    }
    flood = [RawRecord(b"{", b"k", partition=0) for _ in range(100)]
    async with world.consumer(**settings) as service:
        await world.produce([], poison=flood)
        report = await service.wait_readiness(503)
        assert "PoisonFloodError" in json.dumps(report)
        await world.produce([some_event() for _ in range(200)])
        await world.wait_stored()
        await service.wait_readiness(200)
    fault_report.judge(await judge_world(world))


@pytest.mark.fault("K11", "the table of dead letters renamed away, then back")
async def test_without_its_dead_letter_table_nothing_passes(
    world: World, administrator: asyncpg.Connection, fault_report: FaultReport
) -> None:
    """Readiness is red, no place moves and no row appears; with the table back it goes on by itself."""
    await administrator.execute("alter table dead_letters rename to hidden")
    is_hidden = True
    try:
        await world.produce([], poison=[RawRecord(b"{", b"k", partition=0)])
        await world.produce([some_event() for _ in range(50)])
        async with world.consumer() as service:
            await service.wait_readiness(200)
            report = await service.wait_readiness(503)
            assert "storing" in json.dumps(report)
            await service.wait_event("Waiting for a server", count=3)
            assert (
                await administrator.fetchval("select max(next_offset) from consumer_offsets where partition = 0") == 0
            )
            await administrator.execute("alter table hidden rename to dead_letters")
            is_hidden = False
            back_at = time.monotonic()
            await world.wait_stored()
            fault_report.measure(all_stored=f"{time.monotonic() - back_at:.1f} s")
            await service.wait_readiness(200)
    finally:
        if is_hidden:
            await administrator.execute("alter table hidden rename to dead_letters")
    fault_report.judge(await judge_world(world))


@pytest.mark.timeout(120)
@pytest.mark.fault("K12", "Postgres stopped immediately under load, started again after two tries")
async def test_database_away_is_waited_out(fragile_postgres: World, fault_report: FaultReport) -> None:
    """After a crash, a stop and a start it goes on with no restart, no rebalance and no dead letter."""
    world = fragile_postgres
    await world.produce([some_event() for _ in range(5_000)])
    async with world.consumer(BATCH_RECORDS="500", CONSUMER__CHUNK_RECORDS="100") as service:
        await world.wait_some_stored()
        await world.postgres.stop_immediately()
        await world.produce([some_event() for _ in range(1_000)])
        await service.wait_readiness(503)
        await service.wait_event("Waiting for a server", count=2)
        await world.postgres.start()
        back_at = time.monotonic()
        await world.wait_stored()
        fault_report.measure(all_stored=f"{time.monotonic() - back_at:.1f} s")
        await service.wait_readiness(200)
        assert await service.rebalances() == (1, 0, 0)
        ended, _ = await stop_and_judge(service)
    fault_report.judge(ended, await judge_world(world))


@pytest.mark.timeout(120)
@pytest.mark.fault("K4", "Postgres frozen for 9 s, poll interval 6 s")
async def test_database_frozen_beyond_the_poll_interval_costs_no_membership(
    fragile_postgres: World, fault_report: FaultReport
) -> None:
    """Polling goes on while paused, so nobody is evicted; after the thaw everything is stored once."""
    world = fragile_postgres
    await world.produce([some_event() for _ in range(3_000)])
    interval = {"CONSUMER__MAX_POLL_INTERVAL_SECONDS": "6", "CONSUMER__REVOKE_WAIT_SECONDS": "1"}
    bounds = {"CONSUMER__CHUNK_RECORDS": "10", "BATCH_RECORDS": "50", "CONSUMER__QUEUE_BATCHES": "2"}
    async with world.consumer(**interval, **bounds) as service:
        await world.wait_some_stored()
        world.postgres.freeze()
        try:
            await service.wait_readiness(503)

            async def is_paused() -> bool:
                return (await service.metrics())['lp_kafka_consumer_is_paused{name="default"}'] == 1

            await eventually(is_paused, seconds=40)
            await asyncio.sleep(9)  # beyond the interval of 6 s, after which the client would be evicted
        finally:
            world.postgres.thaw()
        await world.wait_stored()
        assert await service.rebalances() == (1, 0, 0)
        assert "_MAX_POLL_EXCEEDED" not in service.process.log.read_text()
    fault_report.judge(await judge_world(world))


@pytest.mark.fault("K1", "SIGTERM while Postgres is frozen")
async def test_signal_while_the_database_is_frozen_ends_with_0(
    fragile_postgres: World, fault_report: FaultReport
) -> None:
    """The try in hand ends by its own time, the group is left, and what was not stored is the next member's."""
    world = fragile_postgres
    await world.produce([some_event() for _ in range(500)])
    limits = {"TRY_TIMEOUT_SECONDS": "3", "POSTGRES__STATEMENT_TIMEOUT_SECONDS": "3", "CONSUMER__CHUNK_RECORDS": "100"}
    async with world.consumer(**limits) as service:
        await world.wait_stored()
        world.postgres.freeze()
        try:
            await world.produce([some_event() for _ in range(500)])
            await service.wait_readiness(503)
            ended, seconds = await stop_and_judge(service)
        finally:
            world.postgres.thaw()
    fault_report.judge(ended)
    fault_report.measure(stopped=f"{seconds:.1f} s")
    assert await world.fetch_value("select count(*) from coupons") == 500
    async with world.consumer():
        await world.wait_stored()
    fault_report.judge(await judge_world(world))


@pytest.mark.timeout(120)
@pytest.mark.fault("K7", "the broker frozen until readiness is red, then thawed")
async def test_broker_frozen_and_continued_is_waited_out(fragile_kafka: World, fault_report: FaultReport) -> None:
    """Readiness turns red after its time and green again; nothing is lost, and the process goes on."""
    world = fragile_kafka
    await world.produce([some_event() for _ in range(500)])
    async with world.consumer() as service:
        await world.wait_stored()
        world.kafka.freeze()
        try:
            report = await service.wait_readiness(503)
            assert "kafka" in json.dumps(report)
        finally:
            world.kafka.thaw()
        back_at = time.monotonic()
        await world.produce([some_event() for _ in range(500)])
        await world.wait_stored(seconds=80)
        fault_report.measure(all_stored=f"{time.monotonic() - back_at:.1f} s")
        await service.wait_readiness(200)
        ended, _ = await stop_and_judge(service)
    fault_report.judge(ended, await judge_world(world))


@pytest.mark.timeout(120)
async def test_topic_made_anew_is_read_from_its_beginning(fragile_kafka: World) -> None:
    """A running member notices the new id and begins at the new topic's beginning, whatever its settings say."""
    world = fragile_kafka
    await world.produce([some_event() for _ in range(500)])
    async with world.consumer(START="latest", CHECK_SECONDS="0.5") as service:
        await service.wait_event("Partitions placed")
        await world.produce([some_event() for _ in range(100)])

        async def are_read() -> bool:
            return await world.stored_records() == world.records

        await eventually(are_read, seconds=40)
        before = world.records
        await make_topic_anew(world.kafka, world.topic)
        await world.produce([some_event() for _ in range(300)])
        await service.wait_event("The topic was made anew", seconds=60)
        await eventually(are_read, seconds=60)
        assert await world.fetch_value("select count(distinct topic_id) from consumer_offsets") == 2
    stored = await world.fetch_value(
        "select count(*) from coupons where code = any ($1::text[])",
        [event.coupon.code for event in world.events[before:]],
    )
    assert stored == 300


@pytest.mark.timeout(90)
@pytest.mark.fault("K9", "reset-offsets to the start after all was stored")
async def test_offsets_moved_back_are_followed_and_change_no_coupon(world: World, fault_report: FaultReport) -> None:
    """A running, idle member replays everything after `reset-offsets`; the table stays the same, skips are counted."""
    issued = [some_event() for _ in range(100)]
    await world.produce([*issued, *(cancelled(event) for event in issued[:30])])
    async with world.consumer() as service:
        await world.wait_stored()
        fault_report.judge(await judge_world(world))
        done = await run_command(
            world.postgres, world.database, world.kafka.bootstrap, world.topic, "reset-offsets", "--to", "earliest"
        )
        assert (done.returncode, done.stdout.count("next offset 0")) == (0, 6), done.stderr
        await service.wait_event("Stored offsets were moved")
        await world.wait_stored()

        async def are_counted() -> bool:
            return (await service.metrics())['lp_consumer_records_total{outcome="skipped"}'] >= world.records

        await eventually(are_counted, seconds=40)
        fault_report.judge(await judge_world(world))
        part = ("reset-offsets", "--to", "3", "--partition", "2")
        done = await run_command(world.postgres, world.database, world.kafka.bootstrap, world.topic, *part)
        assert done.stdout.strip().endswith("partition 2: next offset 3")
        await world.wait_stored()
        for beyond in (world.records + 1, 2**63 - 1, 10**30):
            wrong = ("reset-offsets", "--to", str(beyond), "--partition", "2")
            done = await run_command(world.postgres, world.database, world.kafka.bootstrap, world.topic, *wrong)
            assert (done.returncode, f"partition 2 has no offset {beyond}: it has 0 to" in done.stdout) == (1, True)
        wrong = ("reset-offsets", "--to", "3", "--partition", "77")
        done = await run_command(world.postgres, world.database, world.kafka.bootstrap, world.topic, *wrong)
        assert (done.returncode, done.stdout) == (1, "no such partition: [77]\n")
    fault_report.judge(await judge_world(world))


async def test_command_without_its_database_says_so_on_standard_error_alone(fragile_postgres: World) -> None:
    """Standard output is the command's own: the log goes beside it, in the service's form."""
    await fragile_postgres.postgres.stop_fast()
    where = (fragile_postgres.postgres, fragile_postgres.database, fragile_postgres.kafka.bootstrap)
    done = await run_command(*where, fragile_postgres.topic, "dead-letters", "list")
    assert (done.returncode, done.stdout) == (1, "")
    *logged, last = done.stderr.splitlines()
    assert {json.loads(line)["service"] for line in logged} == {"coupon-consumer"}
    assert last.startswith("postgres: ")


async def test_dead_letters_are_listed_shown_and_replayed_by_command(
    world: World, administrator: asyncpg.Connection
) -> None:
    """What the operator sees is escaped; what today's rules understand is stored; the status says whether all was."""
    event = some_event()
    await produce(world.kafka.bootstrap, world.topic, [RawRecord(b"\x1b[2J{", b"k\n")])
    world.records += 1
    async with world.consumer():
        await world.wait_stored()

    async def command(*words: str) -> tuple[int, str]:
        done = await run_command(
            world.postgres, world.database, world.kafka.bootstrap, world.topic, "dead-letters", *words
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    status, text = await command("list")
    assert status == 0
    assert "NotJsonError (5 bytes)" in text
    assert text.endswith("1 dead letters\n")
    letter = text.split()[0]
    status, text = await command("show", letter)
    assert status == 0
    assert r"payload: b'\x1b[2J{'" in text
    assert "\x1b" not in text
    failed = f"{letter} still cannot be stored: NotJsonError: the payload is not JSON in UTF-8\n"
    assert await command("replay", "--all") == (1, f"{failed}0 replayed, 0 coupons changed, 1 failed\n")
    record = record_of(event)
    await administrator.execute("update dead_letters set payload = $1, key = $2", record.value, record.key)
    assert await command("replay", "--id", letter) == (0, "1 replayed, 1 coupons changed, 0 failed\n")
    assert await command("list") == (0, "0 dead letters\n")
    none = "0 replayed, 0 coupons changed, 0 failed\n"
    assert await command("replay", "--id", letter) == (0, none)
    unknown = str(uuid4())
    assert await command("replay", "--id", unknown) == (1, f"{unknown}: no such dead letter\n{none}")
    await administrator.execute("update dead_letters set replayed_at = null")
    async with administrator.transaction():
        await administrator.execute("select id from dead_letters for update")
        assert await command("replay", "--id", letter) == (1, f"{letter} is being replayed by another\n{none}")
    assert await command("replay", "--id", letter) == (0, "1 replayed, 0 coupons changed, 0 failed\n")
    world.events.append(event)
    await world.assert_exact(dead_letters=1)
