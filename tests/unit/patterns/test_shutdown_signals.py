"""Shutdown.listen: what hears the signals of this process, and what hears them afterwards."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from patterns.errors import SignalReceived
from patterns.shutdown import Shutdown

LIMIT_SECONDS = 8.0


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Note SIGUSR1, SIGTERM and SIGINT as they reach the handlers of before."""
    numbers = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
    seen: list[int] = []
    before = [signal.signal(number, lambda number, _: seen.append(number)) for number in numbers]
    yield seen
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


async def test_signals_that_are_named_are_heard_while_the_block_runs(heard: list[int]) -> None:
    """The signal ends the context and reaches nobody else; after the block the handler of before hears it again."""
    stop = Shutdown(60)
    before = signal.getsignal(signal.SIGUSR1)
    with stop.listen(signal.SIGUSR1):
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(LIMIT_SECONDS):
            await stop.ctx.wait()
    assert isinstance(stop.ctx.cause, SignalReceived)
    assert stop.ctx.cause.signal is signal.SIGUSR1
    assert heard == []
    assert signal.getsignal(signal.SIGUSR1) is before
    assert not asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0)
    assert heard == [signal.SIGUSR1]
    assert stop.statistics().signals_received == 1


async def test_sigterm_and_sigint_are_heard_if_none_is_named(heard: list[int]) -> None:
    """The first of them begins the stop, the second forces it; others are not heard."""
    stop = Shutdown(60)
    with stop.listen():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(LIMIT_SECONDS):
            await stop.ctx.wait()
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(LIMIT_SECONDS):
            await stop.forced.wait()
    assert isinstance(stop.forced.cause, SignalReceived)
    assert stop.forced.cause.signal is signal.SIGINT
    assert heard == [signal.SIGUSR1]
