"""The consumer's group on Apache Kafka while members join, leave and die under load."""

import asyncio
from typing import Final

import pytest

from tests.support.consumer_group import (
    ConsumerGroup,
    assert_no_event_came_twice,
    judge_revokes,
    owned,
    steady_events,
)
from tests.support.consumer_judge import judge_steps, judge_world, recorded_steps
from tests.support.coupon_consumer_world import World
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport

CHANGES = ("join", "leave", "join", "die", "join", "leave")
PAUSE_SECONDS = 2.5

MEMBERSHIPS: Final[dict[str, tuple[dict[str, str], bool]]] = {
    "eager": ({"CONSUMER__ASSIGNOR": "range"}, False),
    "cooperative": ({"CONSUMER__ASSIGNOR": "cooperative-sticky"}, False),
    "static": ({"CONSUMER__ASSIGNOR": "cooperative-sticky"}, True),
    "consumer-protocol": ({"CONSUMER__GROUP_PROTOCOL": "consumer"}, False),
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("settings", "is_static"),
    [
        pytest.param(
            *membership,
            id=name,
            marks=pytest.mark.fault("K5", f"a member joins, leaves or dies every {PAUSE_SECONDS} s under load, {name}"),
        )
        for name, membership in MEMBERSHIPS.items()
    ],
)
async def test_a_change_every_few_seconds_loses_and_doubles_nothing(
    world: World, settings: dict[str, str], is_static: bool, fault_report: FaultReport
) -> None:
    """Whoever comes or goes, in mid-rebalance or not, every event is stored once, and the group ends whole."""
    async with recorded_steps(world) as steps, ConsumerGroup(world, is_static=is_static, **settings) as group:
        async with steady_events(world):
            await group.join()
            await group.join()
            await world.wait_some_stored()
            for change in CHANGES:
                await getattr(group, change)()
                await asyncio.sleep(PAUSE_SECONDS)  # the rhythm of the changes; nothing is read from it
        await world.wait_stored(seconds=90)
        await group.wait_whole()
        for member in group.members:
            await assert_no_event_came_twice(member)
    revokes, longest = judge_revokes(group.everyone)
    fault_report.judge(await judge_world(world), judge_steps(steps, world.ends), revokes)
    fault_report.measure(longest_wait_in_a_revoke=f"{longest:.2f} s")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_static_member_that_comes_back_in_time_gets_its_partitions_and_nobody_else_notices(
    world: World, protocol: str
) -> None:
    """A restart within the session moves no partition of another member: it is assigned once and loses nothing."""
    # Longer than a restart takes on a busy machine. The other protocol's session is the broker's setting.
    session = {"CONSUMER__SESSION_TIMEOUT_SECONDS": "30"} if protocol == "classic" else {}
    async with ConsumerGroup(world, is_static=True, CONSUMER__GROUP_PROTOCOL=protocol, **session) as group:
        async with steady_events(world):
            await group.join()
            other = await group.join()
            await group.wait_whole()
            before = await other.rebalances()
            share = await owned(group.members[0])
            await group.leave()
            again = await group.join()

            async def has_its_share() -> bool:
                return await owned(again) == share

            await eventually(has_its_share, seconds=40)
        await world.wait_stored(seconds=60)
        assert await other.rebalances() == before
        for member in group.members:
            await assert_no_event_came_twice(member)
    await world.assert_exact()


async def test_second_member_under_the_same_id_ends_the_first_one_loudly(world: World) -> None:
    """Two processes with one id by mistake: the broker fences the older, which ends with status 1 and says why."""
    settings = {"CONSUMER__GROUP_INSTANCE_ID": "the-same"}
    async with world.consumer(**settings) as first:
        await first.wait_event("Partitions placed")
        async with world.consumer(**settings) as second:
            assert await first.process.wait(60) == 1
            assert "fenced" in first.process.log.read_text().lower()
            await second.wait_event("Partitions placed")
