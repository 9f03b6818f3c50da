"""G3: the outbox's lease, its mark after the broker's word, and the order of a coupon's events.

The topic is judged by its records: the coupons table skips a second record of an event, and would hide a lost lease.
"""

import asyncio
import itertools
import signal
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.guard_scene import ENDED, KILLED, KILLS, SHORT_LEASES, GuardScene, open_guard_scene, wait_frozen
from tests.support.judgement import Judgement, Rule, judge_end
from tests.support.reward_store_contract import HEADERS, LEASE
from tests.support.seeds import seeded
from tests.support.service_process import HttpServiceProcess, armed

LONG_LEASE = {"RELAY__LEASE_SECONDS": "300"}
MEMBERS = ("m-1", "m-2", "m-3")


async def _redeem_beside(scene: GuardScene, *members: str) -> list[UUID]:
    """Redeem with no service that would be told of it, so that a relay finds the events when it looks next."""
    await scene.enrol(*members)
    return [await scene.redeem_beside(member) for member in members]


async def _cancel_beside(scene: GuardScene, redemption_id: UUID, member: str) -> None:
    """Cancel in the same way: the coupon has a second event."""
    await scene.world.store.begin_cancel(redemption_id, member, LEASE)
    await scene.world.store.finish_cancel(redemption_id, HEADERS)


async def _wait_told(scene: GuardScene, redemption_id: UUID) -> None:
    """Wait until every event of one redemption is marked as published."""
    statement = """
        select bool_and(published_at is not null) from outbox join redemptions on coupon_code = key
        where redemption_id = $1
    """
    await eventually(lambda: scene.world.administrator.fetchval(statement, redemption_id), seconds=40)


async def _stop(service: HttpServiceProcess) -> Judgement:
    service.process.send_signal(signal.SIGTERM)
    return judge_end("reward_store", *await service.end(30), wanted=ENDED)


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.fault("G3", f"{KILLS} kills of a relay, after its claim or after the broker's word")
async def test_twenty_deaths_of_relays_lose_no_event_and_double_only_what_was_not_yet_marked(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whoever comes next publishes what the dead had in hand; what they had sent is sent once more, nothing else is."""
    random = seeded("kill")
    sent: Counter[UUID] = Counter()
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        for kill in range(KILLS):
            point = random.choice(["after-claim", "after-publish"])
            before = await scene.claims()
            async with scene.reward_store(**SHORT_LEASES, **armed(point, random.randrange(1, 4))) as doomed:
                members = (f"m-{kill}-{number}" for number in range(1_000))
                while doomed.process.is_running:
                    await _redeem_beside(scene, *itertools.islice(members, random.randrange(1, 6)))
                    await asyncio.sleep(0.3)
                assert await doomed.process.wait(20) == KILLED, doomed.process.log.read_text()
            if point == "after-publish":
                sent.update(row_id for row_id, _ in await scene.claims() - before)
        async with scene.reward_store(**SHORT_LEASES) as last:
            await last.wait_readiness(200)
            await scene.world.wait_published(40)
            fault_report.judge(await _stop(last))
        fault_report.judge(await scene.judge_redemptions(), await scene.judge_topic(sent))
        fault_report.measure(records_sent_again=str(sum(sent.values())))


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.fault("G3", f"a relay frozen beyond its lease {when}, overtaken, thawed"))
        for point, when in (("after-claim", "after its claim"), ("after-publish", "after the broker's word"))
    ],
)
async def test_relay_frozen_beyond_its_lease_is_overtaken_and_harms_nothing_when_it_wakes_up(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport, point: str
) -> None:
    """Its events went out without it; what it still sends are second records, behind the first of each event."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        async with scene.reward_store(**SHORT_LEASES, **armed(point, action="freeze")) as frozen:
            await frozen.wait_readiness(200)
            ids = await _redeem_beside(scene, *MEMBERS)
            await wait_frozen(frozen)
            held = Counter(row_id for row_id, _ in await scene.claims())
            async with scene.reward_store(**SHORT_LEASES) as other:
                await scene.world.wait_published(40)
                await _cancel_beside(scene, ids[0], MEMBERS[0])
                await scene.world.wait_published(40)
                frozen.process.thaw()
                fault_report.judge(await _stop(frozen), await _stop(other))
        fault_report.judge(await scene.judge_redemptions(), await scene.judge_topic(held))


async def _overtake(scene: GuardScene, without: str | None) -> Judgement:
    """Let a relay publish beside one that is frozen with a claim in hand, whose lease goes on; judge the topic."""
    async with scene.reward_store(without=without, **LONG_LEASE, **armed("after-claim", action="freeze")) as frozen:
        await frozen.wait_readiness(200)
        ids = await _redeem_beside(scene, *MEMBERS)
        await wait_frozen(frozen)
        async with scene.reward_store(without=without, **LONG_LEASE) as other:
            await _cancel_beside(scene, ids[0], MEMBERS[0])
            [last] = await _redeem_beside(scene, "m-last")
            await _wait_told(scene, last)  # so the other one has looked, and has taken what it may
            frozen.process.thaw()
            await scene.world.wait_published(40)
            ends = await _stop(frozen) | await _stop(other)
    return ends | await scene.judge_topic()


@pytest.mark.fault("G3", "a relay frozen within its lease, another beside it")
async def test_relay_leaves_alone_what_another_holds(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """While a lease goes on its events wait, and so do the later ones of their coupons: each comes once, in order."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        fault_report.judge(await _overtake(scene, None), await scene.judge_redemptions())


@pytest.mark.parametrize(
    ("guard", "rule"),
    [
        pytest.param(
            f"outbox-{guard}",
            rule,
            marks=pytest.mark.fault("G3", f"without the {guard}: another relay beside a frozen one"),
        )
        for guard, rule in (("lease", Rule.NOTHING_DOUBLED), ("order", Rule.RIGHT_CONTENT))
    ],
)
async def test_without_the_lease_or_the_order_the_other_relay_is_noticed(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport, guard: str, rule: Rule
) -> None:
    """Without the lease events come twice; without the order a coupon's second event comes before its first."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        fault_report.notice(await _overtake(scene, guard), rule)


@pytest.mark.fault("G3", "without the mark after the broker's word: kill -9 after the claim")
async def test_without_the_mark_after_the_broker_s_word_a_death_loses_events(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path, fault_report: FaultReport
) -> None:
    """Rows that are marked when they are claimed are lost with whoever claimed them."""
    async with open_guard_scene(postgres, kafka, tmp_path) as scene:
        async with scene.reward_store(without="outbox-mark", **SHORT_LEASES, **armed("after-claim")) as doomed:
            await doomed.wait_readiness(200)
            await _redeem_beside(scene, *MEMBERS)
            assert await doomed.process.wait(20) == KILLED
        async with scene.reward_store(without="outbox-mark", **SHORT_LEASES) as next_one:
            await _redeem_beside(scene, "m-last")
            await scene.world.wait_published(40)
            assert (await _stop(next_one)).is_ok
        fault_report.notice(await scene.judge_topic(), Rule.NOTHING_LOST)
