"""Ticker, after, and the timers beneath them."""

import asyncio
import gc
import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from patterns import Outcome, Ticker, TickerStatistics, WouldBlock, after, receive, select
from patterns._core import Core
from patterns._timer import THREAD_CLOCK, Clock, ThreadTimer, Timer, current_clock
from patterns.bubble import bubble, wait_idle
from patterns.ticker import _Bell
from tests.support.spinning import spin_until


def timers() -> list[asyncio.TimerHandle]:
    """The live timers of the running loop."""
    scheduled: list[asyncio.TimerHandle] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
    return [timer for timer in scheduled if not timer.cancelled()]


def no_timer_thread() -> bool:
    """Whether the timer thread has ended."""
    return all(thread.name != "patterns-timers" for thread in threading.enumerate())


def test_ticks_come_once_a_period() -> None:
    """A reader in time gets every tick, and each is the time at which it was due."""

    async def main() -> None:
        with Ticker(10) as ticker:
            assert [await ticker.channel.receive() for _ in range(3)] == [10, 20, 30]
            assert ticker.statistics() == TickerStatistics(10, sent=3, dropped=0)

    bubble(main)


def test_slow_reader_misses_ticks_and_keeps_the_beat() -> None:
    """Ticks that nobody took are dropped, all but the first; the next one comes on the beat."""

    async def main() -> None:
        with Ticker(10) as ticker:
            await asyncio.sleep(35)
            assert [await ticker.channel.receive() for _ in range(2)] == [10, 40]
            assert ticker.statistics() == TickerStatistics(10, sent=2, dropped=2)

    bubble(main)


def test_ticker_that_falls_behind_skips_and_keeps_its_beat() -> None:
    """After a pause of the whole loop there is one tick at once, and the next on the beat."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with Ticker(10) as ticker:
            loop._now = 37.0  # type: ignore[attr-defined]  # the bubble's clock, as if the loop had been blocked
            assert [await ticker.channel.receive() for _ in range(2)] == [37, 40]

    bubble(main)


@pytest.mark.parametrize("has_waiting_reader", [False, True])
def test_no_stale_tick_after_stop(has_waiting_reader: bool) -> None:
    """A tick that was not received before ``stop`` is gone, no other comes, and no timer is left."""

    async def main() -> None:
        ticker = Ticker(10)
        await asyncio.sleep(15)
        ticker.stop()
        ticker.stop()
        if has_waiting_reader:
            assert await select(receive(ticker.channel), timeout_seconds=100) is Outcome.TIMEOUT
        else:
            await asyncio.sleep(100)
        with pytest.raises(WouldBlock):
            ticker.channel.receive_nowait()
        assert ticker.statistics().period_seconds is None
        assert timers() == []

    bubble(main)


def test_no_stale_tick_after_reset() -> None:
    """The first tick after ``reset`` comes one new period later; a stopped ticker starts again."""

    async def main() -> None:
        with Ticker(10) as ticker:
            await asyncio.sleep(15)
            ticker.reset(20)
            assert await ticker.channel.receive() == 35
            ticker.stop()
            ticker.reset(1)
            assert await ticker.channel.receive() == 36

    bubble(main)


def test_tick_whose_receiver_is_cancelled_at_once_is_dropped() -> None:
    """It does not come back as a stale tick, not even after ``stop``."""

    async def main() -> None:
        with Ticker(10) as ticker:
            receiving = asyncio.create_task(ticker.channel.receive())
            await wait_idle()
            assert ticker._beat is not None
            ticker._tick(ticker._beat)
            receiving.cancel()
            ticker.stop()
            await wait_idle()
            assert receiving.cancelled()
            with pytest.raises(WouldBlock):
                ticker.channel.receive_nowait()

    bubble(main)


def test_tick_whose_receiver_is_cancelled_goes_to_no_other_receiver() -> None:
    """After ``reset`` the next in line waits for a tick of the new period, and gets it."""

    async def main() -> None:
        with Ticker(10) as ticker:
            first, second = (asyncio.create_task(ticker.channel.receive()) for _ in range(2))
            await wait_idle()
            assert ticker._beat is not None
            ticker._tick(ticker._beat)
            first.cancel()
            ticker.reset(100)
            assert await second == 100
            assert first.cancelled()
            await asyncio.sleep(100)
            assert ticker.channel.receive_nowait() == 200

    bubble(main)


def test_tick_that_was_received_before_stop_is_kept() -> None:
    """A task that waited and was served resumes with its tick, though ``stop`` has returned meanwhile."""

    async def main() -> None:
        ticker = Ticker(10)
        receiving = asyncio.create_task(ticker.channel.receive())
        asyncio.get_running_loop().call_later(10, ticker.stop)
        assert await receiving == 10
        assert ticker.statistics() == TickerStatistics(None, sent=1, dropped=0)

    bubble(main)


@pytest.mark.parametrize("period_seconds", [0, -1, float("nan")])
def test_period_that_is_not_positive_is_refused(period_seconds: float) -> None:
    """The constructor and ``reset`` raise ValueError."""

    async def main() -> None:
        with pytest.raises(ValueError, match="period_seconds"):
            Ticker(period_seconds)
        with Ticker(1) as ticker, pytest.raises(ValueError, match="period_seconds"):
            ticker.reset(period_seconds)

    bubble(main)


def test_ticker_in_a_thread_uses_the_timer_thread() -> None:
    """Without a loop ticks come too, in order, and when the last timer is stopped the thread ends."""
    with Ticker(0.001) as ticker, Ticker(3600):
        ticks = [ticker.channel.sync.receive() for _ in range(3)]
    assert ticks == sorted(ticks)
    assert len(set(ticks)) == 3
    spin_until(no_timer_thread)


async def test_ticker_of_a_loop_is_stopped_by_another_thread() -> None:
    """When ``stop`` returns there no tick can be received here, and the loop's timer is gone at its next turn."""
    ticker = Ticker(0.001)
    await ticker.channel.receive()
    with ThreadPoolExecutor(1) as pool:
        await asyncio.wrap_future(pool.submit(ticker.stop))
    with pytest.raises(WouldBlock):
        ticker.channel.receive_nowait()
    await asyncio.sleep(0)
    assert timers() == []
    assert ticker.statistics().period_seconds is None


def test_ticker_that_many_threads_reset_and_stop_ends_with_the_last_stop() -> None:
    """Four threads start and stop one ticker as fast as they can: after a last stop nothing is left."""
    ticker = Ticker(0.0001)

    def disturb(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(200):
            if dice.random() < 0.5:
                ticker.reset(dice.choice([0.0001, 0.001, 3600]))
            else:
                ticker.stop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(disturb, range(4)))
    ticker.stop()
    with pytest.raises(WouldBlock):
        ticker.channel.receive_nowait()
    spin_until(no_timer_thread)


def test_ticker_that_could_not_be_reset_may_be_stopped_and_reset_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever resets it in a thread hears that no thread can be started; the ticker is whole."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    spin_until(no_timer_thread)
    ticker = Ticker(3600)
    ticker.stop()
    spin_until(no_timer_thread)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            ticker.reset(0.001)
        ticker.stop()
    ticker.reset(0.001)
    ticker.channel.sync.receive()
    ticker.stop()
    spin_until(no_timer_thread)


def test_tick_that_was_on_its_way_at_stop_is_not_sent() -> None:
    """A timer that fires just after ``stop`` sends nothing and is not set again."""

    async def main() -> None:
        ticker = Ticker(10)
        beat = ticker._beat
        assert beat is not None
        ticker.stop()
        ticker._tick(beat)
        assert len(ticker.channel) == 0
        assert timers() == []

    bubble(main)


def test_after_sends_the_time_once() -> None:
    """The channel gets one value when the time has come, and no other."""

    async def main() -> None:
        channel = after(5)
        assert await channel.receive() == 5
        assert await select(receive(channel), timeout_seconds=100) is Outcome.TIMEOUT

    bubble(main)


def test_after_of_no_time_is_ready_at_the_next_opportunity() -> None:
    """Zero and negative times are due at once."""

    async def main() -> None:
        for seconds in (0, -1):
            await after(seconds).receive()
        assert asyncio.get_running_loop().time() == 0

    bubble(main)


def test_after_that_nobody_can_receive_from_leaves_no_timer() -> None:
    """When its channel is forgotten the timer goes; while a select waits for it, it stays."""

    async def main() -> None:
        channel = after(5)
        assert len(timers()) == 1
        del channel
        gc.collect()
        assert timers() == []
        selecting = asyncio.create_task(select(receive(after(5))))
        await wait_idle()
        gc.collect()
        await selecting
        assert asyncio.get_running_loop().time() == 5

    bubble(main)


def test_after_that_is_due_as_its_channel_goes_does_nothing() -> None:
    """A timer that fires just when nobody can receive any more has nobody to send to."""

    async def main() -> None:
        clock = current_clock()
        bell = _Bell(Core(1), clock, clock.now() + 5)
        bell.ring()
        assert timers() == []

    bubble(main)


class HastyClock(Clock):
    """Its timers go off before they are made, as one of the timer thread may that is due at once."""

    def now(self) -> float:
        """Tell always the same time."""
        return 7.0

    def call_at(self, when: float, function: Callable[[], object]) -> Timer:  # noqa: ARG002 - it does not wait for it
        """Call the function before returning."""
        function()
        return ThreadTimer(function)


def test_after_whose_timer_goes_off_at_once_sends_the_time() -> None:
    """A bell that rings while it is being made has a channel to send to."""
    core: Core[float] = Core(1)
    _Bell(core, HastyClock(), 7.0)
    assert core.take() == 7.0


def test_after_of_a_time_that_is_no_number_is_refused() -> None:
    """A timer with such a time would spoil the order of all others."""
    with pytest.raises(ValueError, match="seconds"):
        after(float("nan"))


def test_after_in_a_thread() -> None:
    """Without a loop the timer thread sends the time, and ends; a forgotten timer ends it too."""
    assert after(0.001).sync.receive() <= time.monotonic()
    spin_until(no_timer_thread)
    channel = after(3600)
    assert not no_timer_thread()
    spin_until(lambda: bool(THREAD_CLOCK._changed._waiters))  # type: ignore[attr-defined]  # the thread sleeps
    del channel
    gc.collect()
    spin_until(no_timer_thread)


def test_sleeping_timer_thread_hears_of_an_earlier_timer() -> None:
    """A timer that is due before all others is not late, and the thread that serves it holds up no exit."""
    later = THREAD_CLOCK.call_at(THREAD_CLOCK.now() + 3600, lambda: None)
    spin_until(lambda: bool(THREAD_CLOCK._changed._waiters))  # type: ignore[attr-defined]  # the thread sleeps
    assert after(0.001).sync.receive() <= time.monotonic()
    assert THREAD_CLOCK._thread is not None
    assert THREAD_CLOCK._thread.daemon
    later.stop()
    spin_until(no_timer_thread)


def test_thread_timers_fire_in_order_of_time() -> None:
    """A timer that is set later and due earlier is served first; a stopped one is not served."""
    fired: list[int] = []
    done = threading.Event()
    start = THREAD_CLOCK.now()
    with THREAD_CLOCK._changed:  # the thread waits until all are set, however slow the machine is
        last = THREAD_CLOCK.call_at(start + 0.02, done.set)
        THREAD_CLOCK.call_at(start + 0.01, lambda: fired.append(2))
        THREAD_CLOCK.call_at(start + 0.005, lambda: fired.append(1))
        THREAD_CLOCK.call_at(start + 0.007, lambda: fired.append(9)).stop()
    done.wait()
    last.stop()
    assert fired == [1, 2]
    spin_until(no_timer_thread)


def test_after_a_time_that_is_no_number_is_refused() -> None:
    """NaN would stay at the head of all timers."""
    with pytest.raises(ValueError, match="nan"):
        after(math.nan)
