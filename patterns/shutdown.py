"""Stop a process in order and in time: what signal.NotifyContext begins in Go, and what Go leaves to you after that.

The first signal is a value in a channel, so that it fits a `select`, and the end of a context whose cause names the
signal. Then phases run one after another under one budget. The second signal, or the end of the budget, cancels the
phase at hand and skips the rest; the result says what was cut off. In Go the second signal does nothing, or, after
NotifyContext's stop function was called, kills the process without a word.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from signal import Signals
from typing import Any, Literal

from patterns.channel import Channel
from patterns.context import Context, background
from patterns.errors import DeadlineExceeded, SignalReceived
from patterns.leak import describe_task
from patterns.select import receive, select

PhaseOutcome = Literal["done", "failed", "cut off", "stuck", "skipped"]
Phase = tuple[str, Callable[[], Coroutine[Any, Any, object]]]  # Any: nothing is sent to or thrown into a phase
"""A name and the function to run."""


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """How one phase ended.

    `outcome` is "done"; "failed" with its `error`; "cut off" if it was cancelled in the middle; "stuck" if it did not
    even end when cancelled; "skipped" if its turn never came. `waited_at` is where it was when it was cut off.
    """

    name: str
    seconds: float
    outcome: PhaseOutcome
    error: BaseException | None = None
    waited_at: str | None = None


@dataclass(frozen=True, slots=True)
class ShutdownResult:
    """How a stop went: the signal that began it, if one did, its phases in order, its length, and what forced it."""

    signal: Signals | None
    phases: tuple[PhaseReport, ...]
    seconds: float
    forced_by: BaseException | None

    @property
    def is_clean(self) -> bool:
        """Whether every phase ran to its end without an error."""
        return all(phase.outcome == "done" for phase in self.phases)

    @property
    def left_over(self) -> tuple[str, ...]:
        """What was cut off: each phase that did not run to its end, how far it came and where it waited."""
        return tuple(
            f"{phase.name}: {phase.outcome}" + (f" at {phase.waited_at}" if phase.waited_at else "")
            for phase in self.phases
            if phase.outcome in ("cut off", "stuck", "skipped")
        )


@dataclass(frozen=True, slots=True)
class ShutdownStatistics:
    """The signals received so far, the phase at hand, and the seconds left of the budget once it runs."""

    signals_received: int
    phase: str | None
    remaining_seconds: float | None


class Shutdown:
    """Turn signals into an ordered, time-limited stop. Made and used in one event loop, the one that gets the signals.

    Args:
        budget_seconds: How long the whole stop may take, from the first signal, or from `run` if there was none.
        report: Called after each phase with its PhaseReport, also for phases that were skipped.
        cancel_seconds: How long a phase that was cancelled may take to end, beyond the budget, before it is given up;
            with 0 it has its next step to do so.
    """

    def __init__(
        self,
        budget_seconds: float,
        *,
        report: Callable[[PhaseReport], None] = lambda _: None,
        cancel_seconds: float = 1.0,
    ) -> None:
        if budget_seconds <= 0:
            raise ValueError(f"budget_seconds must be above 0, not {budget_seconds}")
        if cancel_seconds < 0:
            raise ValueError(f"cancel_seconds must be 0 or more, not {cancel_seconds}")
        self.signals: Channel[Signals] = Channel(1)
        """Receives the first signal: `select(receive(server_errors), receive(shutdown.signals))`."""
        self.ctx: Context = background().with_cancel()
        """Ends with the first signal; its cause is SignalReceived."""
        self.forced: Context = background().with_cancel()
        """Ends at the second signal or the end of the budget, which is its cause: nothing may take time any more."""
        self._budget_seconds = budget_seconds
        self._cancel_seconds = cancel_seconds
        self._report = report
        self._received: list[Signals] = []
        self._begun_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._phase: str | None = None

    @contextmanager
    def listen(self, *signals: Signals) -> Iterator[None]:
        """Hear SIGTERM and SIGINT, or the signals given, while the block runs, in place of what they did before.

        Raises:
            RuntimeError: Not in the main thread, the only one that gets signals.
            NotImplementedError: The event loop has no signals (Windows, or a bubble).
        """
        loop = asyncio.get_running_loop()
        with ExitStack() as restore:
            for number in signals or (signal.SIGTERM, signal.SIGINT):
                before = signal.getsignal(number) or signal.SIG_DFL
                loop.add_signal_handler(number, self.notify, number)
                restore.callback(signal.signal, number, before)
                restore.callback(loop.remove_signal_handler, number)
            yield

    def notify(self, number: Signals) -> None:
        """Act as if the signal had come. For the event loop's thread; others go through call_soon_threadsafe."""
        self._received.append(Signals(number))
        if len(self._received) > 1:
            self.forced.cancel(SignalReceived(Signals(number)))
            return
        self._begin()
        self.ctx.cancel(SignalReceived(Signals(number)))
        self.signals.send_nowait(Signals(number))

    async def run(self, *phases: Phase) -> ShutdownResult:
        """Run the phases in order; a phase that fails does not keep the next ones from running.

        When `forced` ends, the phase at hand is cancelled and given `cancel_seconds` to end, and the rest is skipped.
        May be called again for more phases under what is left of the same budget. A `report` that fails stops nothing.

        Raises:
            CancelledError: This call was cancelled; so was the phase at hand.
            ExceptionGroup: What `report` raised, after the last phase.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        timer = self._begin()
        reports = []
        failures: list[Exception] = []
        try:
            for name, fn in phases:
                report = await self._run_phase(name, fn)
                reports.append(report)
                try:
                    self._report(report)
                except Exception as error:  # noqa: BLE001 - raised when the stop is done
                    failures.append(error)
        finally:
            timer.cancel()
            self._timer = None
        if failures:
            raise ExceptionGroup(f"{len(failures)} phases of a stop could not be reported", failures)
        first = self._received[0] if self._received else None
        return ShutdownResult(first, tuple(reports), loop.time() - started, self.forced.cause)

    def statistics(self) -> ShutdownStatistics:
        """Return the signals so far, the phase at hand and what is left of the budget."""
        remaining = None
        if self._begun_at is not None:
            remaining = max(0.0, self._begun_at + self._budget_seconds - asyncio.get_running_loop().time())
        return ShutdownStatistics(len(self._received), self._phase, remaining)

    def _begin(self) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        if self._begun_at is None:
            self._begun_at = loop.time()
        if self._timer is None:
            self._timer = loop.call_at(self._begun_at + self._budget_seconds, self._run_out)
        return self._timer

    def _run_out(self) -> None:
        self.forced.cancel(DeadlineExceeded(f"the budget of {self._budget_seconds:g} s is over"))

    async def _run_phase(self, name: str, fn: Callable[[], Coroutine[Any, Any, object]]) -> PhaseReport:
        if self.forced.is_done:
            return PhaseReport(name, 0.0, "skipped")
        loop = asyncio.get_running_loop()
        started = loop.time()
        task = asyncio.create_task(_call(fn), name=name)
        ended: Channel[None] = Channel()
        task.add_done_callback(lambda _: ended.close())
        self._phase = name
        waited_at = None
        try:
            await select(receive(ended), receive(self.forced.done))
            if not task.done():
                waited_at = describe_task(task).waits_at
                task.cancel()
                await asyncio.wait({task}, timeout=self._cancel_seconds)
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task}, timeout=self._cancel_seconds)
            raise
        finally:
            self._phase = None
        outcome, error = _judge(task, was_cut_off=waited_at is not None)
        return PhaseReport(name, loop.time() - started, outcome, error, waited_at)


async def _call(fn: Callable[[], Coroutine[Any, Any, object]]) -> None:
    await fn()


def _judge(task: asyncio.Task[None], *, was_cut_off: bool) -> tuple[PhaseOutcome, BaseException | None]:
    if not task.done():
        return "stuck", None
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if was_cut_off:
        return "cut off", None if task.cancelled() else error
    return ("done" if error is None else "failed"), error
