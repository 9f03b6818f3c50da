"""A member of the group on Apache Kafka that is frozen while another takes over, and then goes on."""

import pytest

from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps
from tests.support.coupon_consumer_world import World
from tests.support.coupon_events import some_event
from tests.support.fault_report import FaultReport
from tests.support.service_process import armed

LATE = ("Ownership lost: another member stored these records", "Batch of an older assignment dropped")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("protocol", "point"),
    [
        pytest.param(protocol, point, marks=pytest.mark.fault("K3", f"a member frozen {where}, protocol {protocol}"))
        for protocol in ("classic", "consumer")
        for point, where in (("after-poll", "with a batch in hand"), ("after-insert", "in mid-transaction"))
    ],
)
async def test_transaction_of_a_member_frozen_beyond_its_session_changes_nothing(
    world: World, protocol: str, point: str, fault_report: FaultReport
) -> None:
    """Frozen with a batch in hand or in the middle of its transaction, and overtaken, it finds that out and says so.

    A transaction that it left open is ended by the database, or the other member could not go on.
    """
    settings = {
        "CONSUMER__GROUP_PROTOCOL": protocol,
        "CONSUMER__CHUNK_RECORDS": "100",
        "BATCH_RECORDS": "100",
        "POSTGRES__IDLE_IN_TRANSACTION_SECONDS": "3",
    }
    frozen = armed(point, 2, "freeze")
    await world.produce([some_event() for _ in range(2_000)])
    async with recorded_steps(world) as steps, world.consumer(**settings, **frozen) as zombie:
        await zombie.wait_event("Partitions placed")
        async with world.consumer(**settings) as other:
            await world.wait_stored(seconds=90)
            assert zombie.process.is_running
            before = await world.fetch_value("select max(updated_at) from consumer_offsets")
            stored = await world.stored_records()
            zombie.process.thaw()

            async def has_noticed() -> bool:
                said = zombie.events()
                return "Partitions lost: ownership lost without notice" in said or not set(LATE).isdisjoint(said)

            await zombie.wait(has_noticed, seconds=60)
            assert await world.stored_records() == stored
            assert await world.fetch_value("select max(updated_at) from consumer_offsets") == before
            await world.produce([some_event() for _ in range(500)])
            await world.wait_stored(seconds=90)
            for member in (zombie, other):
                metrics = await member.metrics()
                assert metrics['lp_consumer_records_total{outcome="skipped"}'] == 0
    fault_report.judge(await judge_world(world), judge_steps(steps, world.ends))
