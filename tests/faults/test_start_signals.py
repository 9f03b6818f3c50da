"""Signals at every bad moment of a service's life: while it starts, twice, and those that ask for no stop (H5, H6)."""

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import Signals

import pytest

from sandbox.crowd import served
from sandbox.instance import ProcessInstance, Service
from sandbox.system import System, open_system
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Rule, judge, judge_end, judge_time
from tests.support.service_process import service_of

MOMENTS = (0.0, 0.05, 0.2)
END_SECONDS = 60.0
BUDGET_SECONDS = 30.0
IN_ORDER = (0, "Process stopped")
FORCED = (1, "Process stopped")


@contextmanager
def _sigterm_blocked() -> Iterator[None]:
    """Start processes as the image does: a signal from before Python's first instruction is kept."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {Signals.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _judge_ends(
    system: System,
    instances: Sequence[ProcessInstance],
    fault_report: FaultReport,
    *,
    wanted: tuple[int, str] = IN_ORDER,
) -> float:
    """Judge the ends of instances that were told to stop: status, last line and time (L7, L8); return the time."""
    began = time.monotonic()
    for instance in instances:
        status, last = await service_of(instance).end(END_SECONDS)
        fault_report.judge(judge_end(instance.name, status, last, wanted=wanted))
        instance.process.release()
        system.forget(instance)
    seconds = time.monotonic() - began
    fault_report.judge(judge_time("the slowest stop", seconds, at_most=BUDGET_SECONDS))
    return seconds


async def _launch_and_terminate(system: System, service: Service, after_seconds: float) -> ProcessInstance:
    instance = await system.launch(service)
    await asyncio.sleep(after_seconds)
    instance.process.send_signal(Signals.SIGTERM)
    return instance


@pytest.mark.fault("H5", "SIGTERM 0, 50 and 200 ms after the start of each service")
async def test_signal_right_after_the_start_ends_each_service_in_order(
    tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whatever a service has not done yet when it is told to stop, it ends with status 0 and says so."""
    slowest = 0.0
    async with open_system(tmp_path) as system:
        for seconds in MOMENTS:
            with _sigterm_blocked():
                instances = await asyncio.gather(*(_launch_and_terminate(system, one, seconds) for one in Service))
            slowest = max(slowest, await _judge_ends(system, instances, fault_report))
    fault_report.measure(slowest_stop=f"{slowest:.1f} s")


@pytest.mark.fault("H5", "SIGTERM 0, 50 and 200 ms into the wait for a database that is down, each service")
async def test_signal_while_the_database_is_awaited_ends_each_service_in_order(
    tmp_path: Path, fault_report: FaultReport
) -> None:
    """A start that waits for a database is given up at once, with status 0."""
    slowest = 0.0
    async with open_system(tmp_path) as system:
        assert system.mongo_servers is not None
        await system.postgres.stop_fast()
        await system.mongo_servers.mongo.stop()
        for seconds in MOMENTS:
            instances = [await system.launch(service) for service in Service]
            await asyncio.gather(*(_terminate_waiting(instance, seconds) for instance in instances))
            slowest = max(slowest, await _judge_ends(system, instances, fault_report))
            for instance in instances:
                assert "Stopped while starting" in service_of(instance).events()
    fault_report.measure(slowest_stop=f"{slowest:.1f} s")


async def _terminate_waiting(instance: ProcessInstance, after_seconds: float) -> None:
    service = service_of(instance)
    await eventually(lambda: any(one.startswith("Waiting for the database") for one in service.events()), seconds=60)
    await asyncio.sleep(after_seconds)
    instance.process.send_signal(Signals.SIGTERM)


@pytest.mark.fault("H5", "SIGTERM, and SIGINT 0, 50 and 200 ms later, while HTTP drains")
async def test_second_signal_ends_an_http_service_now(tmp_path: Path, fault_report: FaultReport) -> None:
    """Whoever asks twice does not wait for the drain of eight seconds: status 1, and a line says what was cut off."""
    slowest = 0.0
    async with open_system(tmp_path) as system:
        for seconds in MOMENTS:
            instances = await asyncio.gather(
                *(system.start(one, {f"{one.upper()}_HTTP__DRAIN_LAG_SECONDS": "8"}) for one in served(system))
            )
            for instance in instances:
                instance.process.send_signal(Signals.SIGTERM)
                await asyncio.sleep(seconds)
                instance.process.send_signal(Signals.SIGINT)  # a second SIGTERM might melt into the first
            slowest = max(slowest, await _judge_ends(system, instances, fault_report, wanted=FORCED))
            for instance in instances:
                assert "Stopped by force" in service_of(instance).events()
    fault_report.measure(slowest_stop=f"{slowest:.1f} s")


@pytest.mark.fault("H6", "SIGPIPE, SIGQUIT and SIGHUP to each service")
async def test_signals_that_are_no_stop_have_their_documented_effect(tmp_path: Path, fault_report: FaultReport) -> None:
    """SIGPIPE does nothing, SIGQUIT shows the stacks and stops nothing, SIGHUP stops in order."""
    async with open_system(tmp_path) as system:
        instances = await asyncio.gather(*(system.start(service) for service in Service))
        for instance in instances:
            instance.process.send_signal(Signals.SIGPIPE)
            instance.process.send_signal(Signals.SIGQUIT)
        for instance in instances:
            await service_of(instance).wait_event("Stacks")
        fault_report.judge(judge(Rule.RIGHT_END, await _not_ready(instances)))
        for instance in instances:
            instance.process.send_signal(Signals.SIGHUP)
        seconds = await _judge_ends(system, instances, fault_report)
    fault_report.measure(slowest_stop=f"{seconds:.1f} s")


async def _not_ready(instances: list[ProcessInstance]) -> list[str]:
    return [f"{one.name} is not ready after SIGPIPE and SIGQUIT" for one in instances if not await one.is_ready()]
