"""Signals at every bad moment of a service's life: while it starts, twice, and those that ask for no stop (H5, H6)."""

import asyncio
import functools
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import Signals

import pytest

from sandbox.instance import ProcessInstance, Service
from sandbox.system import System, open_system
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, Rule, judge, judge_end, judge_time
from tests.support.service_process import ServiceProcess, service_of

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


async def _launch_each(system: System) -> list[ProcessInstance]:
    with _sigterm_blocked():
        return [await system.launch(service) for service in Service]


async def _end_of(system: System, instance: ProcessInstance, *, wanted: tuple[int, str] = IN_ORDER) -> Judgement:
    """Wait for an instance's end and judge its status, its last line, and how long it took (L7, L8)."""
    began = asyncio.get_running_loop().time()
    status, last = await service_of(instance).end(END_SECONDS)
    seconds = asyncio.get_running_loop().time() - began
    instance.process.release()
    system.forget(instance)
    return judge_end(instance.name, status, last, wanted=wanted) | judge_time(
        f"{instance.name}: its stop", seconds, at_most=BUDGET_SECONDS
    )


async def _terminate_each(system: System, instances: list[ProcessInstance], after_seconds: float) -> list[Judgement]:
    await asyncio.sleep(after_seconds)
    for instance in instances:
        instance.process.send_signal(Signals.SIGTERM)
    return [await _end_of(system, instance) for instance in instances]


@pytest.mark.fault("H5", "SIGTERM 0, 50 and 200 ms after the start of each service")
async def test_signal_right_after_the_start_ends_each_service_in_order(
    tmp_path: Path, fault_report: FaultReport
) -> None:
    """Whatever a service has not done yet when it is told to stop, it ends with status 0 and says so."""
    async with open_system(tmp_path) as system:
        for seconds in MOMENTS:
            instances = await _launch_each(system)
            fault_report.judge(*await _terminate_each(system, instances, seconds))


@pytest.mark.fault("H5", "SIGTERM 0, 50 and 200 ms into the wait for a database that is down, each service")
async def test_signal_while_the_database_is_awaited_ends_each_service_in_order(
    tmp_path: Path, fault_report: FaultReport
) -> None:
    """A start that waits for a database is given up at once, with status 0."""
    async with open_system(tmp_path) as system:
        await system.postgres.stop_fast()
        for seconds in MOMENTS:
            instances = await _launch_each(system)
            services = [service_of(instance) for instance in instances]
            for service in services:
                await eventually(functools.partial(_is_waiting, service), seconds=END_SECONDS)
            fault_report.judge(*await _terminate_each(system, instances, seconds))
            for service in services:
                assert "Stopped while starting" in service.events()


def _is_waiting(service: ServiceProcess) -> bool:
    return any(event.startswith("Waiting for the database") for event in service.events())


@pytest.mark.fault("H5", "SIGTERM, and SIGINT 0, 50 and 200 ms later, while HTTP drains")
async def test_second_signal_ends_an_http_service_now(tmp_path: Path, fault_report: FaultReport) -> None:
    """Whoever asks twice does not wait for the drain of eight seconds: status 1, and a line says what was cut off."""
    async with open_system(tmp_path) as system:
        for service in (Service.REWARD_STORE, Service.COUPON_API):
            for seconds in MOMENTS:
                lag = {f"{service.upper()}_HTTP__DRAIN_LAG_SECONDS": "8"}
                instance = await system.start(service, lag)
                instance.process.send_signal(Signals.SIGTERM)
                await asyncio.sleep(seconds)
                instance.process.send_signal(Signals.SIGINT)  # a second SIGTERM might melt into the first
                fault_report.judge(await _end_of(system, instance, wanted=FORCED))
                assert "Stopped by force" in service_of(instance).events()


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
        for instance in instances:
            fault_report.judge(await _end_of(system, instance))


async def _not_ready(instances: list[ProcessInstance]) -> list[str]:
    return [f"{one.name} is not ready after SIGPIPE and SIGQUIT" for one in instances if not await one.is_ready()]
