"""Run a process from its settings to its exit status: the one place that starts an event loop.

Statuses: 0 after an orderly stop, also one that came while the process was still starting, unless its settings name
another one; 1 when the application failed or the stop had to be forced; 78 (``EX_CONFIG`` of sysexits.h) for bad
settings; a job that comes to its end may set its own. Go's ``main`` does this by hand
in every program, and its ``log.Fatal`` skips deferred calls; here everything is closed first, unless force is needed.
"""

import asyncio
import gc
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from signal import Signals
from typing import Final, Protocol, TypeVar

from patterns.channel import Channel
from patterns.context import Context
from patterns.errors import ContextCancelled
from patterns.leak import describe_task
from patterns.select import receive, select
from patterns.shutdown import PhaseReport, Shutdown
from runtime.admin import AdminServer
from runtime.errors import SettingsError
from runtime.hard_stop import EXIT_FAILED, HardStop
from runtime.health import Health
from runtime.logs import close_logs, configure_logs, flush_logs, get_logger
from runtime.metrics import ReadinessCollector, StatisticsCollector, register_process, registry, render_metrics
from runtime.settings import ProcessSettings, load_settings
from runtime.signals import SignalInbox, hold_signals
from runtime.stack import StackTeller, describe_tasks
from runtime.watchdog import LoopWatchdog

EXIT_OK: Final = 0
EXIT_SETTINGS: Final = 78

_CANCEL_SECONDS: Final = 1.0
_HARD_MARGIN_SECONDS: Final = 3.0

log = get_logger(__name__)


class Process:
    """What an application gets from the process it runs in.

    Attributes:
        ctx: ends when the stop is forced: by a second signal, or at the end of ``grace_seconds``.
        startup: ends at the first signal or after ``startup_seconds``; dependencies are awaited under it. A
            ``ContextCancelled`` that leaves ``Application.run`` because of that signal is an orderly end.
        shutdown: receives the first signal: ``select(receive(server_errors), receive(process.shutdown))``.
        stop: runs the phases of the stop under what is left of ``grace_seconds``: ``await process.stop.run(...)``.
        health: what the admin port answers; ``set_ready`` when work has begun, ``set_draining`` when the stop has.
        exit_status: of an orderly end; a job sets it when its work is done.
    """

    def __init__(self, settings: ProcessSettings) -> None:
        self._phases: list[PhaseReport] = []
        self.stop = Shutdown(settings.grace_seconds, report=self._report, cancel_seconds=_CANCEL_SECONDS)
        self.ctx: Context = self.stop.forced
        self.startup: Context = self.stop.ctx.with_timeout(settings.startup_seconds)
        self.shutdown: Channel[Signals] = self.stop.signals
        self.health = Health()
        self.exit_status = settings.stopped_status

    def notify(self, number: Signals) -> None:
        """Act on a signal that asks for a stop; on the loop."""
        if not self.is_stopping():
            self.health.set_draining()
            log.info("Stop requested", signal=number.name)
        else:
            log.warning("Stop forced", signal=number.name)
        self.stop.notify(number)

    def is_stopping(self) -> bool:
        """Say whether a signal has asked for the stop."""
        return self.stop.ctx.is_done

    def cut_off(self) -> list[str]:
        """Return the phases of the stop that did not come to their end."""
        return [f"phase {p.name}: {p.outcome}" for p in self._phases if p.outcome in ("cut off", "stuck", "skipped")]

    def has_failed_phase(self) -> bool:
        """Say whether a phase of the stop raised."""
        return any(phase.outcome == "failed" for phase in self._phases)

    def _report(self, phase: PhaseReport) -> None:
        self._phases.append(phase)
        fields = {"phase": phase.name, "seconds": round(phase.seconds, 3), "outcome": phase.outcome}
        if phase.outcome == "done":
            log.info("Stop phase done", **fields)
        elif phase.error is not None:
            log.error("Stop phase failed", **fields, error=repr(phase.error))
        else:
            log.warning("Stop phase not done", **fields, waited_at=phase.waited_at)


class Application(Protocol):
    """A service: built from its settings, run in a process until it is told to stop."""

    async def run(self, process: Process) -> None:
        """Do the service's work; return after an orderly stop, raise when the work failed."""


SettingsT_contra = TypeVar("SettingsT_contra", bound=ProcessSettings, contravariant=True)
SettingsT = TypeVar("SettingsT", bound=ProcessSettings)


class ApplicationType(Protocol[SettingsT_contra]):
    """Whatever builds an application from its settings; usually its class."""

    def __call__(self, settings: SettingsT_contra, /) -> Application:
        """Build, without opening anything."""


def run(settings_type: type[SettingsT], application_type: ApplicationType[SettingsT]) -> int:
    """Run an application to its end and return the process's exit status; main thread only, once a process.

    In this order: settings, logs, event loop (uvloop where there is one), signals, the admin port, the application, and
    all of it back. A signal before or while the application starts is an orderly end; the second signal, or the end
    of ``grace_seconds``, cancels the application, and what then still does not end is left behind by force.
    """
    inbox = hold_signals()
    try:
        settings = load_settings(settings_type)
    except SettingsError as error:
        sys.stderr.write(f"{settings_type.service}: {error}\n")
        inbox.close()
        return EXIT_SETTINGS
    configure_logs(settings)
    register_process(settings.service, settings.instance)
    started_at = time.monotonic()
    log.info("Process started", pid=os.getpid(), python=platform.python_version())
    hard_stop = HardStop()
    gc.freeze()  # what is loaded stays for good: to look through it at each collection took up to a fifth of the time
    status = EXIT_FAILED
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            status = runner.run(_supervise(settings, application_type, inbox, hard_stop))
    except (Exception, SystemExit):
        log.exception("Process failed")
    log.info("Process stopped", status=status, seconds=round(time.monotonic() - started_at, 3))
    inbox.close()
    left = [t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    if left:  # the interpreter is going to wait for them: the hard stop stays armed, and needs the logs
        log.warning("Threads are still there", threads=left)
        flush_logs()
    else:
        hard_stop.disarm()
        close_logs()
    return status


async def _supervise(
    settings: SettingsT, application_type: ApplicationType[SettingsT], inbox: SignalInbox, hard_stop: HardStop
) -> int:
    """Surround the application: signals, watchdog and admin port before it, and away after it."""
    loop = asyncio.get_running_loop()
    process = Process(settings)
    hard_stop.describe = lambda: [*process.cut_off(), *describe_tasks(loop)]
    stacks = StackTeller(loop)
    received: list[Signals] = []

    def take(number: Signals) -> None:  # in a signal handler: between any two instructions of this thread
        if number is Signals.SIGQUIT:
            stacks.ask()
            return
        received.append(number)
        hard_stop.arm(_HARD_MARGIN_SECONDS + (settings.grace_seconds if len(received) == 1 else 0.0))
        loop.call_soon_threadsafe(process.notify, number)

    inbox.attach(take)
    watchdog = LoopWatchdog(loop)
    watchdog.start()
    registry.register(StatisticsCollector("event_loop", watchdog.statistics, counters=frozenset({"blocked"})))
    admin = AdminServer(settings.admin, process.health, render_metrics)
    registry.register(ReadinessCollector(lambda: admin.readiness))
    try:
        admin.start(loop)
        log.info("Admin server listening", address=str(admin.address))
        return await _run_application(process, lambda: application_type(settings))
    except OSError as error:
        log.error("Admin server failed", error=str(error))  # noqa: TRY400 - the message is all there is to say
        return EXIT_FAILED
    finally:
        admin.close()
        watchdog.stop()
        inbox.detach()
        stacks.close()
        hard_stop.arm(_HARD_MARGIN_SECONDS)  # for the loop's own end: tasks that eat their cancel, threads that hang


async def _run_application(process: Process, build: Callable[[], Application]) -> int:
    """Run the application until it ends or the stop is forced, and judge how it ended."""
    await asyncio.sleep(0)  # a signal from before the loop is delivered first
    if process.is_stopping():
        log.info("Stopped before the start")
        return process.exit_status
    task = asyncio.create_task(_start(process, build), name="application")
    await _wait_ended_or_forced(task, process.ctx)
    if process.ctx.is_done:
        await _cut_off(task)
    error = _error_of(task)
    if not task.done() or process.ctx.is_done:
        left = [*process.cut_off(), *([] if task.done() else [str(describe_task(task))])]
        log.error("Stopped by force", reason=str(process.ctx.cause), cut_off=left, error=repr(error) if error else None)
        return EXIT_FAILED
    if error is None:
        return EXIT_FAILED if process.has_failed_phase() else process.exit_status
    if isinstance(error, ContextCancelled) and process.is_stopping():
        log.info("Stopped while starting")
        return process.exit_status
    log.error("Application failed", exc_info=error)
    return EXIT_FAILED


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    if not task.done():
        return None
    return asyncio.CancelledError("the application was cancelled") if task.cancelled() else task.exception()


async def _start(process: Process, build: Callable[[], Application]) -> None:
    await build().run(process)


async def _wait_ended_or_forced(task: asyncio.Task[None], forced: Context) -> None:
    ended: Channel[None] = Channel(1)
    task.add_done_callback(lambda _: ended.close())
    await select(receive(ended), receive(forced.done))


async def _cut_off(task: asyncio.Task[None]) -> None:
    """Let the application end by itself, now that its stop phases are cancelled; then cancel it, and then give up."""
    await asyncio.wait({task}, timeout=_CANCEL_SECONDS)
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_SECONDS)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
