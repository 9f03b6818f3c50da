"""Shutdown: the ordered stop, on the virtual clock."""

import asyncio
import signal
import sys

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.channel import Channel
from patterns.errors import DeadlineExceeded, SignalReceived
from patterns.select import receive, select
from patterns.shutdown import PhaseReport, Shutdown, ShutdownResult, ShutdownStatistics
from tests.support.running_loop import now

FOREVER = 1_000_000.0


async def take(seconds: float) -> None:
    """Be a phase that takes some time."""
    await asyncio.sleep(seconds)


async def two() -> None:
    """Take two seconds."""
    await take(2)


async def three() -> None:
    """Take three seconds."""
    await take(3)


async def hang() -> None:
    """Never end by oneself."""
    await take(FOREVER)


async def refuse_to_end() -> None:
    """Never end, even when cancelled."""
    while True:
        try:
            await take(FOREVER)
        except asyncio.CancelledError:
            continue


async def fail() -> None:
    """Raise."""
    raise ValueError("broken")


def outcomes(result: ShutdownResult) -> list[tuple[str, float, str]]:
    """Return name, seconds and outcome of each phase."""
    return [(phase.name, phase.seconds, phase.outcome) for phase in result.phases]


def test_first_signal_fits_a_select_and_is_the_cause() -> None:
    """The select over server_errors and the signals yields the signal, and the context ends with it as its cause."""

    async def main() -> None:
        stop = Shutdown(10)
        server_errors: Channel[BaseException] = Channel(1)
        failed, stopped = receive(server_errors), receive(stop.signals)
        asyncio.get_running_loop().call_later(5, stop.notify, signal.SIGTERM)
        assert await select(failed, stopped) is stopped
        assert stopped.value is signal.SIGTERM
        assert now() == 5
        cause = stop.ctx.cause
        assert isinstance(cause, SignalReceived)
        assert cause.signal is signal.SIGTERM
        assert str(cause) == "received SIGTERM"
        assert not stop.forced.is_done

    bubble(main)


def test_signal_that_comes_before_anyone_listens_is_kept() -> None:
    """A signal during the start waits in the channel for the select that comes later."""

    async def main() -> signal.Signals:
        stop = Shutdown(10)
        stop.notify(signal.SIGINT)
        await asyncio.sleep(3)
        return await stop.signals.receive()

    assert bubble(main) is signal.SIGINT


def test_phases_run_in_order_and_each_is_reported_with_its_duration() -> None:
    """Phases run one after another; each report is given when its phase has ended; the result is clean."""

    async def main() -> None:
        told: list[tuple[float, PhaseReport]] = []
        stop = Shutdown(10, report=lambda report: told.append((now(), report)))
        stop.notify(signal.SIGTERM)
        result = await stop.run(("stop intake", two), ("drain", three))
        assert outcomes(result) == [("stop intake", 2, "done"), ("drain", 3, "done")]
        assert [at for at, _ in told] == [2, 5]
        assert tuple(report for _, report in told) == result.phases
        assert (result.signal, result.seconds, result.forced_by) == (signal.SIGTERM, 5, None)
        assert result.is_clean
        assert result.left_over == ()

    bubble(main)


def test_failed_phase_does_not_keep_the_next_from_running() -> None:
    """A phase that raises, or is cancelled by something of its own, is reported as failed; the stop goes on."""

    async def cancelled_inside() -> None:
        raise asyncio.CancelledError

    async def main() -> None:
        result = await Shutdown(10).run(("bad", fail), ("odd", cancelled_inside), ("good", two))
        assert outcomes(result) == [("bad", 0, "failed"), ("odd", 0, "failed"), ("good", 2, "done")]
        assert str(result.phases[0].error) == "broken"
        assert isinstance(result.phases[1].error, asyncio.CancelledError)
        assert not result.is_clean
        assert result.left_over == ()
        assert result.signal is None

    bubble(main)


def test_report_that_fails_does_not_keep_the_next_phase_from_running() -> None:
    """A log whose reader is gone does not end the ordered stop; its errors are raised after the last phase."""

    async def main() -> None:
        told: list[str] = []

        def report(phase: PhaseReport) -> None:
            told.append(phase.name)
            if phase.name != "second":
                raise BrokenPipeError(phase.name)

        stop = Shutdown(10, report=report)
        with pytest.raises(ExceptionGroup, match="2 phases of a stop could not be reported") as caught:
            await stop.run(("first", two), ("second", two), ("third", three))
        assert [str(error) for error in caught.value.exceptions] == ["first", "third"]
        assert told == ["first", "second", "third"]
        assert now() == 7
        await asyncio.sleep(100)
        assert not stop.forced.is_done

    bubble(main)


def test_report_that_ends_the_program_is_not_held_up() -> None:
    """SystemExit in `report` is no failure of the report: nothing more is run."""

    async def main() -> None:
        stop = Shutdown(10, report=lambda _: sys.exit(3))
        with pytest.raises(SystemExit):
            await stop.run(("first", two), ("second", two))
        assert now() == 2

    bubble(main)


def test_phase_that_ends_in_the_step_of_its_cancel_is_not_stuck() -> None:
    """Even cancel_seconds of nothing leave a phase that step."""

    async def main() -> None:
        result = await Shutdown(10, cancel_seconds=0).run(("quick to end", hang))
        assert outcomes(result) == [("quick to end", 10, "cut off")]

    bubble(main)


def test_end_of_the_budget_cuts_the_phase_off_and_skips_the_rest() -> None:
    """The budget counts from the first signal; at its end the phase at hand is cancelled, and the result says where."""

    async def main() -> None:
        stop = Shutdown(10)
        stop.notify(signal.SIGTERM)
        await asyncio.sleep(4)
        result = await stop.run(("quick", two), ("slow", hang), ("never", two))
        assert outcomes(result) == [("quick", 2, "done"), ("slow", 4, "cut off"), ("never", 0, "skipped")]
        assert (now(), result.seconds) == (10, 6)
        assert stop.statistics().remaining_seconds == 0
        assert isinstance(result.forced_by, DeadlineExceeded)
        assert str(result.forced_by) == "the budget of 10 s is over"
        assert result.left_over[0].startswith(f"slow: cut off at {__file__}:")
        assert "in take (sleep)" in result.left_over[0]
        assert result.left_over[1] == "never: skipped"
        assert not result.is_clean

    bubble(main)


def test_second_signal_cuts_off_at_once() -> None:
    """The second signal, whichever it is, ends the phase at hand and is named as what forced the stop."""

    async def main() -> None:
        stop = Shutdown(10)
        stop.notify(signal.SIGTERM)
        asyncio.get_running_loop().call_later(3, stop.notify, signal.SIGINT)
        asyncio.get_running_loop().call_later(3, stop.notify, signal.SIGINT)
        result = await stop.run(("slow", hang), ("never", two))
        assert outcomes(result) == [("slow", 3, "cut off"), ("never", 0, "skipped")]
        assert isinstance(result.forced_by, SignalReceived)
        assert result.forced_by.signal is signal.SIGINT
        assert result.signal is signal.SIGTERM

    bubble(main)


def test_second_signal_before_the_stop_begins_skips_everything() -> None:
    """When both signals came while the process was still starting, no phase is begun."""

    async def main() -> None:
        stop = Shutdown(10)
        stop.notify(signal.SIGTERM)
        stop.notify(signal.SIGTERM)
        assert stop.forced.is_done
        result = await stop.run(("never", two))
        assert outcomes(result) == [("never", 0, "skipped")]

    bubble(main)


def test_budget_ends_also_when_no_stop_was_run() -> None:
    """A process that does not get to its stop after a signal is told by `forced` that its time is up."""

    async def main() -> float:
        stop = Shutdown(10)
        await asyncio.sleep(1)
        stop.notify(signal.SIGTERM)
        await stop.forced.wait()
        return now()

    assert bubble(main) == 11


@pytest.mark.parametrize(
    ("options", "seconds"),
    [({}, 11), ({"cancel_seconds": 2}, 12), ({"cancel_seconds": 0.5}, 10.5), ({"cancel_seconds": 0}, 10)],
)
def test_phase_that_refuses_its_cancel_is_given_up(options: dict[str, float], seconds: float) -> None:
    """After cancel_seconds more, or one, a phase that does not end is stuck, and the stop goes on."""

    async def main() -> None:
        stop = Shutdown(10, **options)  # type: ignore[arg-type]  # a table of keyword arguments
        result = await stop.run(("stubborn", refuse_to_end), ("never", two))
        assert outcomes(result) == [("stubborn", seconds, "stuck"), ("never", 0, "skipped")]
        assert result.left_over[0].startswith("stubborn: stuck at ")
        assert now() == seconds
        (task,) = asyncio.all_tasks() - {asyncio.current_task()}
        coroutine = task.get_coro()
        assert asyncio.iscoroutine(coroutine)
        with pytest.raises(ValueError, match="out"):
            coroutine.throw(ValueError("out"))  # nothing else gets it out
        task.cancel()

    bubble(main)


def test_stop_that_has_ended_is_not_forced_later() -> None:
    """When all phases have run, the end of the budget no longer matters."""

    async def main() -> None:
        stop = Shutdown(10)
        result = await stop.run(("quick", two))
        await asyncio.sleep(100)
        assert result.is_clean
        assert not stop.forced.is_done

    bubble(main)


def test_phase_that_fails_while_it_is_cut_off_keeps_its_error() -> None:
    """What goes wrong in the clean-up of a cancelled phase is in its report; a clean end leaves none."""

    async def clean_badly() -> None:
        try:
            await hang()
        finally:
            raise ValueError("in clean-up")

    async def finish_anyway() -> None:
        try:
            await hang()
        except asyncio.CancelledError:
            return

    async def main() -> None:
        result = await Shutdown(1).run(("bad", clean_badly))
        assert result.phases[0].outcome == "cut off"
        assert str(result.phases[0].error) == "in clean-up"
        result = await Shutdown(1).run(("good", finish_anyway))
        assert (result.phases[0].outcome, result.phases[0].error) == ("cut off", None)

    bubble(main)


def test_second_run_goes_on_under_the_same_budget() -> None:
    """Phases run in two calls share one budget, and between the calls its clock goes on."""

    async def main() -> None:
        stop = Shutdown(10)
        assert stop.statistics() == ShutdownStatistics(signals_received=0, phase=None, remaining_seconds=None)
        first = await stop.run(("first", three))
        await asyncio.sleep(3)
        assert stop.statistics() == ShutdownStatistics(signals_received=0, phase=None, remaining_seconds=4)
        second = await stop.run(("second", hang))
        assert first.is_clean
        assert outcomes(second) == [("second", 4, "cut off")]

    bubble(main)


def test_statistics_name_the_phase_at_hand() -> None:
    """While a stop runs the statistics say how far it is."""

    async def main() -> None:
        stop = Shutdown(10)
        stop.notify(signal.SIGTERM)
        task = asyncio.create_task(stop.run(("drain", three)))
        await asyncio.sleep(1)
        assert stop.statistics() == ShutdownStatistics(signals_received=1, phase="drain", remaining_seconds=9)
        assert (await task).is_clean

    bubble(main)


def test_cancelled_run_cancels_its_phase_and_raises() -> None:
    """A cancel of the stop itself is passed to the phase at hand, which may clean up, and is raised."""

    async def main() -> None:
        cleaned: list[str] = []

        async def clean_up() -> None:
            try:
                await hang()
            finally:
                await asyncio.sleep(0.5)
                cleaned.append("clean")

        stop = Shutdown(10)
        task = asyncio.create_task(stop.run(("phase", clean_up)))
        await wait_idle()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert cleaned == ["clean"]
        assert stop.statistics().phase is None

    bubble(main)


@pytest.mark.parametrize(("budget", "cancel", "name"), [(0.0, 1.0, "budget_seconds"), (1.0, -1.0, "cancel_seconds")])
def test_wrong_argument_is_named(budget: float, cancel: float, name: str) -> None:
    """A budget of nothing and a negative time to end are refused."""
    with pytest.raises(ValueError, match=name):
        Shutdown(budget, cancel_seconds=cancel)
