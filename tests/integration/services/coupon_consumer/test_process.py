"""coupon_consumer as a process: how it starts and ends, and what survives its death."""

import signal

import pytest

from tests.support.consumer_group import judge_revokes
from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps, stop_and_judge
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import cancelled, some_event
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport

MANY = 20_000
CRASHES = [("after-poll", 1), ("after-poll", 3), ("after-insert", 2), ("after-commit", 2), ("before-kafka-commit", 1)]


async def test_events_become_coupons_and_sigterm_ends_with_0(world: World) -> None:
    """Coupons are stored whole, the stored offsets are the partitions' ends, the stop is orderly."""
    issued = [some_event() for _ in range(200)]
    await world.produce(issued + [cancelled(event) for event in issued[:20]])
    async with world.consumer() as service:
        await service.wait_readiness(200)
        await world.wait_stored()
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(20) == 0
    await world.assert_exact()
    said = service.events()
    in_order = ["Received shutdown signal", "Kafka consumer stopped", "Application shutdown completed"]
    assert [event for event in said if event in in_order] == in_order


@pytest.mark.fault("K1", f"SIGTERM in the middle of {MANY} records")
async def test_sigterm_in_mid_batch_finishes_it_and_the_next_member_goes_on_behind_it(
    world: World, fault_report: FaultReport
) -> None:
    """The stop is orderly under load, and nothing that was stored is read again by a fresh member."""
    await world.produce([some_event() for _ in range(MANY)])
    async with world.consumer(BATCH_RECORDS="1000", CONSUMER__CHUNK_RECORDS="200") as service:
        await world.wait_some_stored()
        ended, seconds = await stop_and_judge(service)
        fault_report.judge(ended)
        fault_report.measure(stopped=f"{seconds:.1f} s")
    stored = await world.stored_records()
    assert await world.fetch_value("select count(*) from coupons") == stored
    async with world.consumer() as service:
        await service.wait_event("Partitions placed")
        await world.wait_stored()
        await service.wait_settled(stored=MANY - stored, skipped=0, dead_lettered=0)
    fault_report.judge(await judge_world(world))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("point", "hit"),
    [
        pytest.param(point, hit, marks=pytest.mark.fault("K2", f"death {point.replace('-', ' ')}, arrival {hit}"))
        for point, hit in CRASHES
    ],
)
async def test_death_at_a_crash_point_loses_and_doubles_nothing(
    world: World, point: str, hit: int, fault_report: FaultReport
) -> None:
    """The process dies there; another goes on from the database's offset, and every event is stored once, whole."""
    issued = [some_event() for _ in range(3_000)]
    await world.produce(issued + [cancelled(event) for event in issued[::10]])
    armed = {"CRASH__IS_TEST": "true", "CRASH__POINT": point, "CRASH__HIT": str(hit)}
    async with world.consumer(**armed, BATCH_RECORDS="500", CONSUMER__CHUNK_RECORDS="100") as service:
        assert await service.process.wait(30) == 128 + signal.SIGKILL
    before = await world.stored_records()
    async with world.consumer() as service:
        await service.wait_event("Partitions placed")
        await world.wait_stored()

        async def are_counted() -> bool:
            metrics = await service.metrics()
            settled = sum(value for name, value in metrics.items() if name.startswith("lp_consumer_records_total"))
            return settled == world.records - before

        await eventually(are_counted, seconds=40)
    fault_report.judge(await judge_world(world))


@pytest.mark.timeout(120)
@pytest.mark.fault("K2", "death in the revoke handler")
async def test_death_in_the_revoke_handler_loses_and_doubles_nothing(world: World, fault_report: FaultReport) -> None:
    """A member that dies while it gives its partitions up leaves them to the next one as they are stored."""
    await world.produce([some_event() for _ in range(MANY)])
    async with world.consumer(CRASH__IS_TEST="true", CRASH__POINT="in-revoke") as service:
        await world.wait_some_stored()
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(30) == 128 + signal.SIGKILL
    async with world.consumer():
        await world.wait_stored()
    fault_report.judge(await judge_world(world))


@pytest.mark.timeout(150)
@pytest.mark.fault("K3", "a member frozen with a batch in hand beyond its session, overtaken, thawed")
async def test_zombie_that_wakes_up_after_its_partitions_were_taken_changes_nothing(
    world: World, fault_report: FaultReport
) -> None:
    """A member frozen with a batch in hand, overtaken and continued, has its transaction refused and goes on as one."""
    await world.produce([some_event() for _ in range(2_000)])
    armed = {"CRASH__IS_TEST": "true", "CRASH__POINT": "after-poll", "CRASH__HIT": "2", "CRASH__ACTION": "freeze"}
    async with world.consumer(**armed, CONSUMER__CHUNK_RECORDS="100") as zombie:
        await zombie.wait_event("Partitions placed")
        async with world.consumer() as other:
            # The session of the frozen one has to end, and its transaction, if it was in one, to be ended.
            await world.wait_stored(seconds=90)
            zombie.process.thaw()
            notices = {
                "Ownership lost: another member stored these records",
                "Batch of an older assignment dropped",
                "Partitions lost: ownership lost without notice",
            }

            async def has_noticed() -> bool:
                return bool(notices & set(zombie.events()))

            await eventually(has_noticed, seconds=40)
            await world.produce([some_event() for _ in range(500)])
            await world.wait_stored(seconds=60)
            for member in (zombie, other):
                ended, _ = await stop_and_judge(member)
                fault_report.judge(ended)
    fault_report.judge(await judge_world(world))


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "assignor",
    [
        pytest.param(name, marks=pytest.mark.fault("K5", f"members join, leave and die under load, {name}"))
        for name in ("cooperative-sticky", "range")
    ],
)
async def test_members_that_come_and_go_lose_and_double_nothing(
    world: World, assignor: str, fault_report: FaultReport
) -> None:
    """Partitions move from member to member under load, in order and by death, and every event is stored once."""
    settings = {"CONSUMER__ASSIGNOR": assignor}
    await world.produce([some_event() for _ in range(5_000)])
    async with recorded_steps(world) as steps, world.consumer(**settings) as first:
        await world.wait_some_stored()
        async with world.consumer(**settings) as second:
            await second.wait_event("Partitions placed", seconds=60)
            await world.produce([some_event() for _ in range(5_000)])
            first.process.send_signal(signal.SIGTERM)
            assert await first.process.wait(20) == 0
            await world.produce([some_event() for _ in range(5_000)])
            async with world.consumer(**settings) as third:
                await second.process.kill()
                await world.produce([some_event() for _ in range(5_000)])
                await world.wait_stored(seconds=60)
    revokes, longest = judge_revokes([first, second, third])
    fault_report.judge(await judge_world(world), judge_steps(steps, world.ends), revokes)
    fault_report.measure(longest_wait_in_a_revoke=f"{longest:.2f} s")


async def test_signal_while_servers_are_awaited_ends_with_0(fragile_postgres: World) -> None:
    """Nobody has to wait for the end of a start that is not wanted any more."""
    await fragile_postgres.postgres.stop_fast()
    async with fragile_postgres.consumer() as service:
        await service.wait_event("Waiting for the database and the topic")
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait(10) == 0


async def test_database_down_at_start_ends_with_1_and_the_last_error(fragile_postgres: World) -> None:
    """It waits as long as its setting says, then says why it gave up."""
    await fragile_postgres.postgres.stop_fast()
    async with fragile_postgres.consumer(STARTUP_SECONDS="1") as service:
        assert await service.process.wait(20) == 1
    assert "no connection within" in service.process.log.read_text()


async def test_missing_topic_is_waited_for(world: World) -> None:
    """A consumer that starts before its topic is made is not ready, then works without a restart."""
    world.topic = f"late-{world.topic}"
    async with world.consumer() as service:
        await service.wait_event("Waiting for the database and the topic")
        found = await service.report()
        assert found is not None
        assert found[0] == 503
        await world.kafka.create_topic(world.topic)
        await world.produce([some_event()])
        await world.wait_stored()
        await service.wait_readiness(200)
    await world.assert_exact()


async def test_missing_topic_ends_with_1_when_the_time_is_over(world: World) -> None:
    """The message names the topic."""
    world.topic = "no-such-topic"
    async with world.consumer(STARTUP_SECONDS="1") as service:
        assert await service.process.wait(20) == 1
    assert "topic no-such-topic not found in time" in service.process.log.read_text()


async def test_brokers_away_at_start_are_told_in_the_log_and_nowhere_else(world: World) -> None:
    """Every line is one of ours, few of them, and they say what is awaited and why a connection failed last."""
    async with world.consumer(STARTUP_SECONDS="7", KAFKA__BOOTSTRAP="127.0.0.1:1") as service:
        assert await service.process.wait(20) == 1
    text = service.process.log.read_text()
    assert len(service.log()) == len(text.splitlines()) < 20
    assert "Waiting for the topic" in service.events()
    assert "Connection refused" in text


async def test_bad_settings_end_with_78(world: World) -> None:
    """An armed crash point outside a test, and a mistyped name, are told together."""
    async with world.consumer(CRASH__POINT="after-poll", CONSUMER__GRUOP="x") as service:
        assert await service.process.wait(20) == 78
    text = service.process.log.read_text()
    assert "for tests only" in text
    assert "CONSUMER__GRUOP" in text
