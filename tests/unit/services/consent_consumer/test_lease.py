"""The lease on the fake store, on a clock of its own: waiting, renewing, losing, giving back."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from random import Random
from typing import Any

import pytest

from patterns import ContextCancelled, DeadlineExceeded, background, bubble
from runtime.errors import DependencyUnavailable
from services.consent_consumer.errors import LeaseLostError
from services.consent_consumer.lease import LeaseKeeper
from services.consent_consumer.settings import LeaseSettings
from services.consent_consumer.store import Position
from tests.support.consent_store_contract import MASTER, position
from tests.support.fake_consent_store import FakeConsentStore

SETTINGS = LeaseSettings(seconds=30, renew_seconds=10, poll_seconds=2)


class AwayStore(FakeConsentStore):
    """A store that may be away: a call then takes a while and comes to nothing, done or not."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.loses_answers = False
        self.timeout_seconds = 5.0
        self.delay_seconds = 0.0
        self.asked: list[float] = []

    async def take_lease(self, claim_id: str, holder: str, seconds: float) -> int | None:
        """See `ConsentStore`."""
        fence: int | None = await self._answer(lambda: FakeConsentStore.take_lease(self, claim_id, holder, seconds))
        return fence

    async def renew_lease(self, claim_id: str, seconds: float) -> None:
        """See `ConsentStore`."""
        await self._answer(lambda: FakeConsentStore.renew_lease(self, claim_id, seconds))

    async def give_back_lease(self, claim_id: str) -> None:
        """See `ConsentStore`."""
        await self._answer(lambda: FakeConsentStore.give_back_lease(self, claim_id))

    async def _answer(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:  # noqa: ANN401 - what the call gives
        self.asked.append(asyncio.get_running_loop().time())
        if self.loses_answers:
            await call()
        if self.is_away or self.loses_answers:
            await asyncio.sleep(self.timeout_seconds)
            raise DependencyUnavailable("mongo", "no answer")
        answer = await call()
        await asyncio.sleep(self.delay_seconds)
        return answer


class DeafStore(FakeConsentStore):
    """A store to which a cancel in the tick of its answer is lost, as it is to `asyncio.wait_for` before 3.12."""

    async def renew_lease(self, claim_id: str, seconds: float) -> None:
        """See `ConsentStore`."""
        await super().renew_lease(claim_id, seconds)
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)


def keeper(store: FakeConsentStore, holder: str = "one", settings: LeaseSettings = SETTINGS) -> LeaseKeeper:
    """Return an instance's keeper with a seeded chance."""
    return LeaseKeeper(store, settings, holder, rng=Random(7))


def now() -> float:
    """Return the time of the bubble."""
    return asyncio.get_running_loop().time()


def test_lease_is_renewed_for_as_long_as_the_block_lasts_and_given_back_then() -> None:
    """After an hour it is still held under its first fence, and whoever asks after the block has it at once."""

    async def scene() -> None:
        store = FakeConsentStore()
        async with keeper(store).hold(background()) as lease:
            await asyncio.sleep(3_600)
            lease.check()
            shown = lease.statistics()
            assert (shown.fence, shown.is_lost, shown.unanswered) == (1, False, 0)
            assert shown.renewed in {359, 360}
            assert shown.remaining_seconds >= 19
        assert lease.lost.is_done
        assert lease.statistics().is_lost
        ended_at = now()
        async with keeper(store, "two").hold(background()) as following:
            assert (following.fence, now()) == (2, ended_at)

    bubble(scene)


def test_block_is_left_although_the_renewal_knows_nothing_of_its_end() -> None:
    """The renewal that is under way is the last one, and whoever asks next has the lease at once."""

    async def scene() -> None:
        store = DeafStore()
        async with asyncio.timeout(3_600), keeper(store).hold(background()) as lease:
            await asyncio.sleep(SETTINGS.renew_seconds + 0.5)
        left_at = now()
        async with keeper(store, "two").hold(background()) as following:
            assert following.fence > lease.fence
            assert now() - left_at <= 1

    bubble(scene)


def test_second_instance_waits_until_the_first_is_done() -> None:
    """It asks now and then, and has the lease a poll after the first has given it back."""

    async def scene() -> None:
        store = AwayStore()

        async def second() -> float:
            async with keeper(store, "two").hold(background()) as lease:
                assert lease.fence == 2
                return now()

        async with keeper(store).hold(background()):
            waiting = asyncio.create_task(second())
            before = len(store.asked)
            await asyncio.sleep(100)
            assert 50 <= len(store.asked) - before <= 120
        ended_at = now()
        assert ended_at <= await waiting <= ended_at + 2

    bubble(scene)


def test_second_instance_takes_over_when_the_first_is_silent_for_the_lease_s_time() -> None:
    """A holder that died gives nothing back; the next one has it a lease's time and a poll later."""

    async def scene() -> None:
        store = FakeConsentStore()
        await store.take_lease("dead", "one", 30)
        async with keeper(store, "two").hold(background()) as lease:
            assert lease.fence == 2
            assert 30 <= now() <= 32

    bubble(scene)


def test_lost_ends_before_the_database_would_let_another_in() -> None:
    """While the database is away the lease ends 29.7 s after the last renewal that was confirmed was sent."""

    async def scene() -> None:
        store = AwayStore()
        async with keeper(store).hold(background()) as lease:
            await asyncio.sleep(10.5)  # one renewal has come through, at 10
            store.is_away = True
            await lease.lost.wait()
            assert now() == pytest.approx(39.7)
            assert isinstance(lease.lost.cause, LeaseLostError)
            with pytest.raises(LeaseLostError, match="run out"):
                lease.check()
            assert lease.statistics().unanswered >= 2
        assert now() == pytest.approx(39.7)  # what is lost is not given back

    bubble(scene)


def test_renewal_whose_answer_was_lost_does_not_count() -> None:
    """The database has renewed it, but nobody here knows: the end comes early, never late."""

    async def scene() -> None:
        store = AwayStore()
        async with keeper(store).hold(background()) as lease:
            store.loses_answers = True
            await lease.lost.wait()
            assert now() == pytest.approx(29.7)
            state = await store.find_lease()
            assert state is not None
            assert state.is_held

    bubble(scene)


def test_lease_survives_an_absence_of_the_database_that_is_shorter_than_it() -> None:
    """A renewal without an answer is tried again soon, and the next one that comes through counts."""

    async def scene() -> None:
        store = AwayStore()
        async with keeper(store).hold(background()) as lease:
            store.is_away = True
            await asyncio.sleep(24)
            store.is_away = False
            await asyncio.sleep(600)
            lease.check()
            shown = lease.statistics()
            assert shown.unanswered >= 1
            assert shown.renewed > 50

    bubble(scene)


def test_time_of_an_answer_counts_against_the_lease() -> None:
    """It runs from before the request was sent: an answer that took 20 s leaves 9.7, since 1 % of 30 is not trusted."""

    class SlowStore(FakeConsentStore):
        async def take_lease(self, claim_id: str, holder: str, seconds: float) -> int | None:
            fence = await super().take_lease(claim_id, holder, seconds)
            await asyncio.sleep(20)
            return fence

    async def scene() -> None:
        settings = LeaseSettings(seconds=30, renew_seconds=15, poll_seconds=2)
        async with keeper(SlowStore(), settings=settings).hold(background()) as lease:
            assert lease.statistics().remaining_seconds == pytest.approx(9.7)

    bubble(scene)


def test_time_of_a_renewal_s_answer_counts_too() -> None:
    """A renewal that was sent at 10 s and answered at 18 s lets the lease end as if it had been answered at once."""

    async def scene() -> None:
        store = AwayStore()
        async with keeper(store).hold(background()) as lease:
            store.delay_seconds = 8
            await asyncio.sleep(19)
            assert lease.statistics().renewed == 1
            store.is_away = True
            await lease.lost.wait()
            assert now() == pytest.approx(39.7)

    bubble(scene)


def test_lease_taken_by_another_is_lost_at_the_next_renewal() -> None:
    """It does not go on until its own time is up."""

    async def scene() -> None:
        store = FakeConsentStore()
        async with keeper(store).hold(background()) as lease:
            assert store._lease is not None
            await store.give_back_lease(str(store._lease.claim_id))
            assert await store.take_lease("another", "two", 3_600) == 2
            await lease.lost.wait()
            assert now() == 10
        state = await store.find_lease()
        assert state is not None
        assert (state.holder, state.is_held) == ("two", True)

    bubble(scene)


def test_renewal_that_ends_by_a_mistake_loses_the_lease_at_once() -> None:
    """The block may not go on by luck, and the mistake is the cause's cause."""

    class BrokenStore(FakeConsentStore):
        async def renew_lease(self, claim_id: str, seconds: float) -> None:
            raise ZeroDivisionError(claim_id, seconds)

    async def scene() -> None:
        async with keeper(BrokenStore()).hold(background()) as lease:
            await lease.lost.wait()
            assert now() == 10
            assert lease.lost.cause is not None
            assert isinstance(lease.lost.cause.__cause__, ZeroDivisionError)

    bubble(scene)


def test_wait_ends_with_its_context_and_leaves_nothing_behind() -> None:
    """By a cancel or by its time, whether another has the lease or the database is away."""

    async def scene() -> None:
        store = AwayStore()
        ctx = background().with_cancel()
        async with keeper(store).hold(background()):
            asyncio.get_running_loop().call_later(5, ctx.cancel)
            with pytest.raises(ContextCancelled):
                async with keeper(store, "two").hold(ctx):
                    pass
            assert now() == 5
        store.is_away = True
        with background().with_timeout(60) as short, pytest.raises(DeadlineExceeded):
            async with keeper(store, "two").hold(short):
                pass
        store.is_away = False
        assert await store.take_lease("next", "three", 30) is not None

    bubble(scene)


@pytest.mark.parametrize("is_cancelled", [True, False], ids=["cancelled", "stopped"])
def test_lease_whose_answer_is_still_to_come_is_given_back_when_the_wait_ends(is_cancelled: bool) -> None:
    """The database has given it, the process ends before it knows: the next one need not wait."""

    class LateStore(FakeConsentStore):
        async def take_lease(self, claim_id: str, holder: str, seconds: float) -> int | None:
            fence = await super().take_lease(claim_id, holder, seconds)
            await asyncio.sleep(20)
            return fence

    async def scene() -> None:
        store = LateStore()
        ctx = background().with_cancel()

        async def wait() -> None:
            async with keeper(store).hold(ctx):
                raise AssertionError("it is not to be entered")

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(1)
        state = await store.find_lease()
        assert state is not None
        assert state.is_held
        if is_cancelled:
            waiting.cancel()
        else:
            ctx.cancel()
        with pytest.raises(asyncio.CancelledError if is_cancelled else ContextCancelled):
            await waiting
        state = await store.find_lease()
        assert state is not None
        assert not state.is_held

    bubble(scene)


def test_stop_of_the_process_does_not_end_the_lease() -> None:
    """The context bounds the wait alone: what is in hand is saved under the lease after it has ended."""

    async def scene() -> None:
        store = FakeConsentStore()
        ctx = background().with_cancel()
        async with keeper(store).hold(ctx) as lease:
            ctx.cancel()
            await asyncio.sleep(100)
            lease.check()
            await store.take_position(MASTER, lease.fence)
            await store.save_position(MASTER, position(7), lease.fence)
            assert store.positions[MASTER].position == position(7)

    bubble(scene)


def test_error_in_the_block_gives_the_lease_back() -> None:
    """It comes out as it is, and the next instance need not wait."""

    async def scene() -> None:
        store = FakeConsentStore()
        with pytest.raises(LookupError):
            async with keeper(store).hold(background()):
                raise LookupError
        assert await store.take_lease("next", "two", 30) == 2

    bubble(scene)


def test_process_that_slept_finds_out_before_it_does_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clock has moved and its loop has not turned since: the check refuses at once, and so does the database."""

    async def scene() -> None:
        store = FakeConsentStore()
        loop = asyncio.get_running_loop()
        awake = loop.time
        async with keeper(store).hold(background()) as lease:
            await store.take_position(MASTER, lease.fence)
            lease.check()
            monkeypatch.setattr(loop, "time", lambda: awake() + 31)
            was_told = lease.lost.is_done
            with pytest.raises(LeaseLostError):
                lease.check()
            assert (was_told, lease.lost.is_done) == (False, True)
            following = await store.take_lease("b", "two", 30)
            assert following is not None
            assert await store.take_position(MASTER, following) is None
            with pytest.raises(LeaseLostError):
                await store.save_position(MASTER, position(9), lease.fence)

    bubble(scene)


class UnfencedStore(FakeConsentStore):
    """A store that lets every save through, as one without a fence would."""

    async def save_position(self, stream: str, position: Position, fence: int) -> None:
        """Store it, whoever asks."""
        await super().save_position(stream, position, self.positions[stream].fence or fence)


@pytest.mark.parametrize("store", [FakeConsentStore(), UnfencedStore()], ids=["fenced", "unfenced"])
def test_without_the_fence_a_sleeper_moves_the_position_of_its_follower(store: FakeConsentStore) -> None:
    """The guard is needed: only with it the history of what is stored is the follower's own."""

    async def scene() -> None:
        first = await store.take_lease("a", "one", 30)
        assert first is not None
        await store.take_position(MASTER, first)
        await asyncio.sleep(31)  # the first one sleeps, between its last look at the lease and its save
        second = await store.take_lease("b", "two", 30)
        assert second is not None
        await store.take_position(MASTER, second)
        await store.save_position(MASTER, position(8), second)
        is_refused = False
        try:
            await store.save_position(MASTER, position(9), first)
        except LeaseLostError:
            is_refused = True
        stands_at = await store.take_position(MASTER, second)

        assert is_refused == (type(store) is FakeConsentStore)
        assert stands_at == position(8 if is_refused else 9)

    bubble(scene)
