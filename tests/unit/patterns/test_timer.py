"""The timers that threads share, when something goes wrong, and what they keep."""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

from patterns import background
from patterns._core import Core
from patterns._timer import THREAD_CLOCK, Clock, Timer
from patterns.ticker import _Bell
from tests.support.spinning import spin_until


def no_timer_thread() -> bool:
    """Whether the timer thread has ended."""
    return all(thread.name != "patterns-timers" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_timer_thread() -> Iterator[None]:
    yield
    spin_until(no_timer_thread)


def test_timer_that_fails_is_reported_and_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it raises goes to the threads' hook; the timers after it are served, by the same thread."""
    reported: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    error = ValueError("no")
    served_by: list[threading.Thread] = []

    def fail() -> None:
        served_by.append(threading.current_thread())
        raise error

    later = THREAD_CLOCK.call_at(THREAD_CLOCK.now() + 3600, lambda: None)  # keeps the thread
    THREAD_CLOCK.call_at(0, fail)
    with background().with_timeout(0.001) as ctx:
        ctx._scope.add_hook(lambda: served_by.append(threading.current_thread()))
        assert ctx.wait_sync(5) is True
        spin_until(lambda: len(served_by) == 2)
    later.stop()
    (report,) = reported
    assert report.exc_type is ValueError
    assert report.exc_value is error
    assert report.exc_traceback is error.__traceback__
    assert [report.thread] * 2 == served_by


def test_timer_whose_thread_cannot_be_started_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It raises and leaves nothing, and the next one starts a thread."""
    rung: list[int] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            THREAD_CLOCK.call_at(0, lambda: rung.append(1))
    assert not THREAD_CLOCK._pending
    with background().with_timeout(0.001) as ctx:
        assert ctx.wait_sync(5) is True
    assert rung == []


def test_stopped_timers_do_not_pile_up_behind_a_live_one() -> None:
    """There are never more of them than of the others, once the thread has looked."""
    live = [THREAD_CLOCK.call_at(THREAD_CLOCK.now() + 3600, lambda: None) for _ in range(2)]
    for _ in range(1000):
        THREAD_CLOCK.call_at(THREAD_CLOCK.now() + 7200, lambda: None).stop()
    spin_until(lambda: len(THREAD_CLOCK._pending) <= 4)
    live.pop().stop()
    spin_until(lambda: len(THREAD_CLOCK._pending) <= 2)
    for timer in live:
        timer.stop()
        timer.stop()
    spin_until(no_timer_thread)
    assert THREAD_CLOCK._stopped == 0


def test_timer_is_never_early_and_cannot_be_stopped_when_it_has_been() -> None:
    """It is served at its time or later; to stop it then is no mistake, and it does not count among the stopped."""
    served_at: list[float] = []
    served = threading.Event()
    later = THREAD_CLOCK.call_at(THREAD_CLOCK.now() + 3600, lambda: None)

    def serve() -> None:
        served_at.append(THREAD_CLOCK.now())
        served.set()

    due_at = THREAD_CLOCK.now() + 0.02
    timer = THREAD_CLOCK.call_at(due_at, serve)
    served.wait()
    assert served_at[0] >= due_at
    timer.stop()
    assert THREAD_CLOCK._stopped == 0
    later.stop()


def test_function_of_a_timer_is_not_kept_after_its_call() -> None:
    """While the thread waits for the next timer, what the last one called can go."""

    class Function:
        def __call__(self) -> None:
            """Do nothing."""

    later = THREAD_CLOCK.call_at(THREAD_CLOCK.now() + 3600, lambda: None)
    function = Function()
    alive = weakref.ref(function)
    THREAD_CLOCK.call_at(0, function)
    del function
    spin_until(lambda: len(THREAD_CLOCK._pending) == 1)

    def is_gone() -> bool:
        gc.collect()
        return alive() is None

    spin_until(is_gone)
    later.stop()


class HastyClock(Clock):
    """A clock whose timers are due before ``call_at`` has returned, as the timer thread's may be."""

    def now(self) -> float:
        """Tell seven."""
        return 7

    def call_at(self, when: float, function: Callable[[], object]) -> Timer:  # noqa: ARG002 - it is always due
        """Call the function."""
        function()
        return IdleTimer()


class IdleTimer(Timer):
    """A timer that has been."""

    def stop(self) -> None:
        """Do nothing."""


def test_bell_that_is_due_at_once_rings() -> None:
    """A timer that fires while the bell is being made finds its channel."""
    core: Core[float] = Core(1)
    _Bell(core, HastyClock(), 7)
    assert list(core.buffer) == [7]
