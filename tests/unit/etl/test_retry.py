"""Waiting for Postgres: as long as it may, and no longer than the load has time."""

import asyncio

import pytest

from etl.retry import keep_trying
from etl.settings import RetrySettings
from patterns import background
from runtime.errors import DependencyUnavailable
from tests.support.eventually import eventually

AWAY = DependencyUnavailable("postgres", "it does not answer")
SETTINGS = RetrySettings(first_seconds=0.001, most_seconds=0.002, give_up_seconds=0.05)


class Server:
    """Answers a call with its argument, after it was away for so many."""

    def __init__(self, away: float) -> None:
        self.away = away
        self.calls = 0

    async def double(self, number: int) -> int:
        """Answer, or not."""
        self.calls += 1
        if self.calls <= self.away:
            raise AWAY
        return 2 * number


async def test_call_is_made_again_until_it_is_answered() -> None:
    """What it returns comes out, and it is made no more often than needed."""
    server = Server(3)
    assert await keep_trying(background(), SETTINGS, server.double, 21) == 42
    assert server.calls == 4


async def test_call_that_is_never_answered_raises_the_last_error() -> None:
    """After `give_up_seconds` there is no other try."""
    server = Server(float("inf"))
    with pytest.raises(DependencyUnavailable, match="does not answer"):
        await keep_trying(background(), SETTINGS, server.double, 21)
    assert server.calls > 1


async def test_end_of_the_context_cuts_the_wait_short_after_a_last_try() -> None:
    """Whoever is stopped does not wait for a minute, but asks once more."""
    server = Server(float("inf"))
    patient = RetrySettings(first_seconds=60, most_seconds=60, give_up_seconds=600)
    with background().with_cancel() as ctx:
        task = asyncio.create_task(keep_trying(ctx, patient, server.double, 21))
        await eventually(lambda: server.calls)
        ctx.cancel()
        with pytest.raises(DependencyUnavailable):
            await task
    assert server.calls == 2


async def test_other_errors_are_raised_at_once() -> None:
    """What another try would not mend is not tried again."""
    calls = []

    async def fail() -> None:
        calls.append(1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await keep_trying(background(), SETTINGS, fail)
    assert len(calls) == 1
