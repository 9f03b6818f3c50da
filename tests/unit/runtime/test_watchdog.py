"""The loop's watchdog and the last resort."""

import asyncio
import signal
import threading
import time

from structlog.testing import capture_logs

from runtime.hard_stop import HardStop
from runtime.metrics import ProcessMetrics, StatisticsCollector
from runtime.signals import STOP_SIGNALS, SignalInbox
from runtime.watchdog import LoopWatchdog, WatchdogStatistics
from tests.support.eventually import eventually


def test_a_blocked_loop_is_seen_while_it_is_blocked_with_its_stack() -> None:
    """The warning comes before the loop turns again and shows the line that blocks; the counts say how often."""
    seen_while_blocked: list[int] = []

    async def block() -> None:
        watchdog = LoopWatchdog(asyncio.get_running_loop(), blocked_seconds=0.3)
        watchdog.start()
        released = threading.Event()

        def release() -> None:
            while watchdog.statistics().blocked == 0:
                time.sleep(0.01)
            seen_while_blocked.append(watchdog.statistics().blocked)
            released.set()

        releaser = threading.Thread(target=release)
        releaser.start()
        assert released.wait(8)  # blocks this loop until the watchdog has seen that it does
        releaser.join()
        await eventually(lambda: watchdog.statistics().lag_seconds < 0.3)
        watchdog.stop()
        assert watchdog.statistics().blocked == 1
        assert watchdog.statistics().lag_seconds_max >= 0.3
        watchdog.join()

    with capture_logs() as lines:
        asyncio.run(block())
    assert seen_while_blocked == [1]
    assert [line["event"] for line in lines] == ["The event loop is blocked", "The event loop turns again"]
    assert "released.wait" in lines[0]["stack"]


def test_a_stop_in_the_middle_of_a_question_ends_the_watch() -> None:
    """The loop, which has stopped turning by then, is neither waited for nor called blocked."""
    loop = asyncio.new_event_loop()
    watchdog = LoopWatchdog(loop)

    class Answered(threading.Event):
        """Have the stop come just before the question."""

        def clear(self) -> None:
            watchdog.stop()
            super().clear()

    watchdog._answered = Answered()
    watchdog.start()
    watchdog._thread.join(5)
    assert not watchdog._thread.is_alive()
    assert watchdog.statistics().blocked == 0
    loop.close()


def test_the_hard_stop_fires_at_the_earliest_moment_and_says_what_is_left() -> None:
    """Armed twice it keeps the earlier moment, and ends with status 1."""
    ended: list[int] = []
    fired = threading.Event()

    def end(status: int) -> None:
        ended.append(status)
        fired.set()

    hard_stop = HardStop(end)
    hard_stop.arm(3_600)
    hard_stop.arm(0.01)
    hard_stop.arm(3_600)
    assert fired.wait(8)
    assert ended == [1]


def test_the_hard_stop_ends_the_process_even_if_its_last_words_fail() -> None:
    """An error in describing what is left cannot keep the process alive."""
    fired = threading.Event()
    hard_stop = HardStop(lambda _: fired.set())

    def fail() -> list[str]:
        raise RuntimeError("cannot say")

    hard_stop.describe = fail
    hard_stop.arm(0.0)
    assert fired.wait(8)


def test_the_hard_stop_ends_the_process_even_if_its_last_words_hang() -> None:
    """Whatever a lock or a log that stands still comes to, the end follows a second later."""
    fired, released = threading.Event(), threading.Event()
    hard_stop = HardStop(lambda _: fired.set())

    def hang() -> list[str]:
        released.wait(60)
        return []

    hard_stop.describe = hang
    hard_stop.arm(0.0)
    try:
        assert fired.wait(8)
    finally:
        released.set()


def test_a_disarmed_hard_stop_never_fires() -> None:
    """After the disarm its thread is gone and no moment counts."""
    ended: list[int] = []
    hard_stop = HardStop(ended.append)
    hard_stop.arm(0.2)
    hard_stop.disarm()
    assert not [thread for thread in threading.enumerate() if thread.name == "hard-stop"]
    assert ended == []


def test_the_inbox_keeps_signals_until_someone_takes_them_and_then_hands_them_on() -> None:
    """Held signals come first, in order, and later ones at once; after a detach they are held again."""
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGQUIT, signal.SIGPIPE)}
    inbox = SignalInbox()
    try:
        inbox.open()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGQUIT)
        taken: list[signal.Signals] = []
        inbox.attach(taken.append)
        assert taken == [signal.SIGTERM, signal.SIGQUIT]
        signal.raise_signal(signal.SIGINT)
        assert taken[-1] is signal.SIGINT
        inbox.detach()
        signal.raise_signal(signal.SIGINT)
        assert len(taken) == 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_statistics_become_metrics_with_our_prefix_and_kind() -> None:
    """Each number of a statistics object is one metric: named counters count, the others are gauges."""
    collector = StatisticsCollector(
        "event_loop", lambda: WatchdogStatistics(0.5, 0.7, 3), counters=frozenset({"blocked"})
    )
    families = {family.name: family for family in collector.collect()}
    assert {name: family.type for name, family in families.items()} == {
        "lp_event_loop_lag_seconds": "gauge",
        "lp_event_loop_lag_seconds_max": "gauge",
        "lp_event_loop_blocked": "counter",
    }
    assert families["lp_event_loop_blocked"].samples[0].value == 3


def test_the_build_is_told_with_service_and_versions() -> None:
    """One info metric names what runs here."""
    (build, *_) = ProcessMetrics("coupon-api", "i-1").collect()
    labels = build.samples[0].labels
    assert (build.name, labels["service"], labels["instance"]) == ("lp_build", "coupon-api", "i-1")
    assert labels["python"].count(".") == 2
