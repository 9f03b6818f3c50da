"""Cancelling across two databases: what is paid back, when, and by whom."""

import asyncio
import math
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from loyalty.coupon import Coupon
from loyalty.errors import CouponUsedError, LoyaltyError
from loyalty.event import EventType
from loyalty.reward import Member, Redemption, RedemptionStatus
from patterns import background
from patterns.bubble import bubble
from runtime.errors import DependencyUnavailable
from services.reward_store.canceller import Canceller
from services.reward_store.errors import CancellationRejected
from services.reward_store.metrics import CancelMetrics
from services.reward_store.outbox import Backlog, Headers
from services.reward_store.settings import CancelSettings
from tests.support.fake_reward_store import FakeRewardStore
from tests.support.reward_store_client import FakeCoupons
from tests.support.reward_store_contract import event_of, id_of, some_order, some_reward
from tests.support.shuffling_loop import run_shuffled

SETTINGS = CancelSettings(lease_seconds=15, rejected_most_seconds=300, interval_seconds=5, batch_rows=10, concurrency=2)
START = datetime(2026, 11, 1, tzinfo=UTC)


def virtual_now() -> datetime:
    """Return the loop's virtual time as a date."""
    return START + timedelta(seconds=asyncio.get_running_loop().time())


class Death(BaseException):
    """This process dies here, as far as the code can tell."""


class SlowStore(FakeRewardStore):
    """A store whose every step of a cancellation lets others come in between."""

    async def begin_cancel(self, redemption_id: UUID, member_id: str, lease: timedelta) -> Redemption:
        """Begin, a turn later."""
        await asyncio.sleep(0)
        return await super().begin_cancel(redemption_id, member_id, lease)

    async def finish_cancel(self, redemption_id: UUID, headers: Headers) -> Redemption:
        """Finish, a turn later."""
        await asyncio.sleep(0)
        return await super().finish_cancel(redemption_id, headers)

    async def refuse_cancel(self, redemption_id: UUID) -> None:
        """Refuse, a turn later."""
        await asyncio.sleep(0)
        await super().refuse_cancel(redemption_id)


class SlowCoupons(FakeCoupons):
    """A coupon_api that is far away, and knows nothing of some coupons."""

    def __init__(self) -> None:
        super().__init__()
        self.unknown: set[str] = set()
        self.mismatched: set[str] = set()
        self.asked: list[float] = []

    async def cancel(self, coupon: Coupon) -> None:
        """Cancel, a turn later."""
        await asyncio.sleep(0)
        if coupon.code in self.mismatched:
            self.asked.append(asyncio.get_running_loop().time())
            raise CancellationRejected("coupon_api", "answered 409 coupon-mismatch")
        if coupon.code in self.unknown:
            raise DependencyUnavailable("coupon_api", "away")
        await super().cancel(coupon)


class Scene:
    """A store, a coupon_api, and a canceller that dies where it is told to."""

    def __init__(self, canceller_type: type[Canceller] = Canceller) -> None:
        self.store = SlowStore(virtual_now)
        self.store.by_reward["rw-coffee"] = some_reward()
        self.store.by_member["m-1"] = Member("m-1", 10_000)
        self.coupons = SlowCoupons()
        self.registry = CollectorRegistry()
        self.death: str | None = None
        self.canceller = canceller_type(self.store, self.coupons, SETTINGS, CancelMetrics(self.registry), self._reach)

    def _reach(self, point: str) -> None:
        if point == self.death:
            self.death = None
            raise Death

    async def redeem(self, number: int = 0) -> UUID:
        """Redeem and return the id."""
        return id_of(await self.store.redeem(some_order(key=f"key-{number:04}")))

    def state(self) -> tuple[int, int, list[str], list[EventType]]:
        """Return points, stock, the statuses of the redemptions, and the types of all events."""
        return (
            self.store.by_member["m-1"].points,
            self.store.by_reward["rw-coffee"].stock,
            [redemption.status.value for redemption in self.store.redemptions.values()],
            [event_of(waiting.row).type for waiting in self.store.outbox.waiting],
        )

    async def finish_for(self, seconds: float) -> None:
        """Let the finisher run for a time."""
        with background().with_timeout(seconds) as ctx:
            await self.canceller.run(ctx)

    def count(self, end: str) -> float:
        """Return how many cancellations ended so."""
        return self.registry.get_sample_value("lp_cancellations_total", {"end": end}) or 0


STANDING = (9_900, 9, ["issued"], [EventType.ISSUED])
PENDING = (9_900, 9, ["cancelling"], [EventType.ISSUED])
CANCELLED = (10_000, 10, ["cancelled"], [EventType.ISSUED, EventType.CANCELLED])


def test_a_cancellation_ends_cancelled_here_and_there() -> None:
    """The coupon is dead in coupon_api before anything is paid back, and then all of it is."""

    async def scene() -> None:
        scene = Scene()
        redemption_id = await scene.redeem()
        seen: list[tuple[int, int, list[str], list[EventType]]] = []
        scene.coupons.before_answer = lambda: seen.append(scene.state())
        finished = await scene.canceller.cancel(redemption_id, "m-1")
        assert finished.status is RedemptionStatus.CANCELLED
        assert seen == [PENDING]
        assert scene.state() == CANCELLED
        assert scene.count("cancelled") == 1

    bubble(scene)


@pytest.mark.parametrize("point", ["after-cancelling", "after-coupon-cancelled"])
def test_a_death_at_any_step_is_made_good_by_the_finisher(point: str) -> None:
    """Wherever the process dies after the wish was committed, the finisher ends it once the lease is over."""

    async def scene() -> None:
        scene = Scene()
        redemption_id = await scene.redeem()
        scene.death = point
        with pytest.raises(Death):
            await scene.canceller.cancel(redemption_id, "m-1")
        assert scene.state() == PENDING
        await scene.finish_for(SETTINGS.lease_seconds - 1)
        assert scene.state() == PENDING
        await scene.finish_for(2 * SETTINGS.interval_seconds)
        assert scene.state() == CANCELLED
        assert scene.registry.get_sample_value("lp_cancellations_taken_over_total") == 1

    bubble(scene)


def test_a_coupon_used_meanwhile_is_found_by_the_finisher_and_nothing_is_paid_back() -> None:
    """A death before coupon_api was asked leaves the member free to use the coupon: then the redemption stands."""

    async def scene() -> None:
        scene = Scene()
        redemption_id = await scene.redeem()
        scene.death = "after-cancelling"
        with pytest.raises(Death):
            await scene.canceller.cancel(redemption_id, "m-1")
        scene.coupons.used.add(scene.store.redemptions[redemption_id].coupon_code)
        await scene.finish_for(SETTINGS.lease_seconds + 2 * SETTINGS.interval_seconds)
        assert scene.state() == STANDING
        assert scene.count("refused") == 1

    bubble(scene)


def test_coupon_api_away_is_asked_again_until_it_answers() -> None:
    """The finisher waits ever longer, gives nothing back meanwhile, and finishes all when coupon_api returns."""

    async def scene() -> None:
        scene = Scene()
        ids = [await scene.redeem(number) for number in range(7)]
        scene.coupons.is_away = True
        for redemption_id in ids:
            with pytest.raises(DependencyUnavailable):
                await scene.canceller.cancel(redemption_id, "m-1")
        await scene.finish_for(100)
        points, stock, statuses, _ = scene.state()
        assert (points, stock, set(statuses)) == (9_300, 3, {"cancelling"})
        scene.coupons.is_away = False
        await scene.finish_for(100)
        points, stock, statuses, events = scene.state()
        assert (points, stock, set(statuses)) == (10_000, 10, {"cancelled"})
        assert events.count(EventType.CANCELLED) == 7

    bubble(scene)


class FarCoupons(FakeCoupons):
    """A coupon_api that takes almost as long as it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def cancel(self, coupon: Coupon) -> None:
        """Cancel after a while."""
        self.asked.append(coupon.code)
        await asyncio.sleep(2.9)
        await super().cancel(coupon)


def test_two_finishers_before_a_slow_coupon_api_share_the_work_and_double_none() -> None:
    """A batch may take longer than a lease: what waits for its turn is nobody's yet, so nobody is asked about twice."""

    async def scene() -> None:
        scene, coupons = Scene(), FarCoupons()
        for number in range(10):
            await scene.store.begin_cancel(await scene.redeem(number), "m-1", timedelta(0))
        settings = CancelSettings(lease_seconds=15, interval_seconds=5, batch_rows=10, concurrency=1)
        replicas = [Canceller(scene.store, coupons, settings, CancelMetrics(CollectorRegistry())) for _ in range(2)]
        await asyncio.sleep(1)
        with background().with_timeout(60) as ctx:
            await asyncio.gather(*(replica.run(ctx) for replica in replicas))
        assert scene.state()[2] == ["cancelled"] * 10
        assert len(coupons.asked) == len(set(coupons.asked)) == 10

    bubble(scene)


def test_a_stop_waits_for_the_cancellations_in_hand_and_for_no_more_of_the_batch() -> None:
    """The rest is left unclaimed, for another replica to take at once."""

    async def scene() -> None:
        scene, coupons = Scene(), FarCoupons()
        for number in range(10):
            await scene.store.begin_cancel(await scene.redeem(number), "m-1", timedelta(0))
        await asyncio.sleep(1)
        canceller = Canceller(scene.store, coupons, SETTINGS, CancelMetrics(CollectorRegistry()))
        with background().with_timeout(1) as ctx:
            await canceller.run(ctx)
        assert sorted(scene.state()[2]) == ["cancelled"] * 2 + ["cancelling"] * 8
        assert len(await scene.store.claim_cancellations(10, timedelta(seconds=15))) == 8

    bubble(scene)


def test_one_that_cannot_be_finished_holds_up_no_other() -> None:
    """Of a batch, those that can be finished are, and the failure is told afterwards."""

    async def scene() -> None:
        scene = Scene()
        stuck, free = await scene.redeem(1), await scene.redeem(2)
        scene.coupons.unknown.add(scene.store.redemptions[stuck].coupon_code)
        scene.coupons.is_away = True
        for redemption_id in (stuck, free):
            with pytest.raises(DependencyUnavailable):
                await scene.canceller.cancel(redemption_id, "m-1")
        scene.coupons.is_away = False
        await asyncio.sleep(SETTINGS.lease_seconds + 1)
        with pytest.raises(DependencyUnavailable):
            await scene.canceller.finish_abandoned(background())
        statuses = {key: redemption.status.value for key, redemption in scene.store.redemptions.items()}
        assert statuses == {stuck: "cancelling", free: "cancelled"}

    bubble(scene)


def test_a_rejected_one_is_asked_for_ever_more_seldom_and_shown_until_it_is_mended() -> None:
    """It waits each time as long as it has lasted, up to the cap; the gauges tell of it; nobody else waits for it."""

    async def scene() -> None:
        scene = Scene()
        stuck, free = await scene.redeem(1), await scene.redeem(2)
        code = scene.store.redemptions[stuck].coupon_code
        scene.coupons.mismatched.add(code)
        with pytest.raises(CancellationRejected):
            await scene.canceller.cancel(stuck, "m-1")
        scene.death = "after-cancelling"
        with pytest.raises(Death):
            await scene.canceller.cancel(free, "m-1")
        await scene.finish_for(2_000)
        assert scene.store.redemptions[free].status is RedemptionStatus.CANCELLED
        times = scene.coupons.asked
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert all(pause >= min(max(age, 15), 300) for age, pause in zip(times, pauses, strict=False))
        assert 300 <= max(pauses) <= 300 + 2 * SETTINGS.interval_seconds
        assert scene.count("rejected") == len(times) <= 12
        assert scene.count("put off") == 0
        assert scene.registry.get_sample_value("lp_cancelling_rows") == 1
        assert (scene.registry.get_sample_value("lp_cancelling_oldest_seconds") or 0) >= 1_900

        scene.coupons.mismatched.clear()
        assert (await scene.canceller.cancel(stuck, "m-1")).status is RedemptionStatus.CANCELLED
        await scene.finish_for(1)
        assert scene.registry.get_sample_value("lp_cancelling_rows") == 0

    bubble(scene)


def test_what_cannot_be_counted_is_not_shown_as_a_number() -> None:
    """With the database away the gauges say that nothing is known."""

    class Away(SlowStore):
        async def cancelling(self) -> Backlog:
            raise DependencyUnavailable("postgres", "away")

    async def scene() -> None:
        registry = CollectorRegistry()
        canceller = Canceller(Away(virtual_now), SlowCoupons(), SETTINGS, CancelMetrics(registry))
        with background().with_timeout(1) as ctx:
            await canceller.run(ctx)
        for name in ("lp_cancelling_rows", "lp_cancelling_oldest_seconds"):
            assert math.isnan(registry.get_sample_value(name) or 0)

    bubble(scene)


def test_cancelling_is_idempotent_under_any_interleaving() -> None:
    """Five callers and a finisher at once pay back once, whoever is first at each step."""

    async def scene() -> tuple[int, int, list[str], list[EventType]]:
        scene = Scene()
        redemption_id = await scene.redeem()
        results = await asyncio.gather(
            *(_outcome(scene.canceller.cancel(redemption_id, "m-1")) for _ in range(5)),
            scene.finish_for(60),
        )
        assert {result for result in results if result is not None} == {RedemptionStatus.CANCELLED}
        return scene.state()

    assert all(state == CANCELLED for state in run_shuffled(scene, seeds=range(100)))


async def _race(canceller_type: type[Canceller], turns: int) -> tuple[bool, int]:
    """Use the coupon some turns of the loop after its cancellation began; tell whether it was used, and the points."""
    scene = Scene(canceller_type)
    redemption_id = await scene.redeem()
    code = scene.store.redemptions[redemption_id].coupon_code

    async def use() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if code not in scene.coupons.cancelled:
            scene.coupons.used.add(code)

    await asyncio.gather(_outcome(scene.canceller.cancel(redemption_id, "m-1")), use())
    return code in scene.coupons.used, scene.store.by_member["m-1"].points


def _ends_of_races(canceller_type: type[Canceller]) -> set[tuple[bool, int]]:
    return {end for turns in range(6) for end in run_shuffled(_race, canceller_type, turns, seeds=range(20))}


def test_a_redeem_racing_with_a_cancel_never_leaves_both_points_and_a_coupon() -> None:
    """Whichever is first at coupon_api: either the coupon was used and nothing returned, or the other way round."""
    assert _ends_of_races(Canceller) == {(True, 9_900), (False, 10_000)}


class PayingFirst(Canceller):
    """A canceller that pays back before it asks: the order is taken away."""

    async def cancel(self, redemption_id: UUID, member_id: str) -> Redemption:
        """Pay back, then tell coupon_api."""
        begun = await self._store.begin_cancel(redemption_id, member_id, self._lease)
        finished = await self._store.finish_cancel(redemption_id, {})
        await self._coupons.cancel(begun.coupon())
        return finished


def test_paying_back_first_leaves_a_member_with_points_and_a_used_coupon() -> None:
    """The order of the steps is the guard: the other way round the same race can end with both."""
    assert (True, 10_000) in _ends_of_races(PayingFirst)


async def _outcome(call: Awaitable[Redemption]) -> RedemptionStatus | type[LoyaltyError]:
    try:
        return (await call).status
    except CouponUsedError as error:
        return type(error)
