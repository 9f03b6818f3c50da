"""Waiting for a server that may never come."""

import asyncio

import pytest

from patterns import ContextCancelled, background
from runtime.dependency import wait_for_dependency
from runtime.errors import DependencyUnavailable


class Server:
    """A server that refuses so many times before it answers."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = 0

    async def ask(self) -> None:
        """Answer, or not yet."""
        self.asked += 1
        if self.asked <= self.refusals:
            raise DependencyUnavailable("server", f"refusal {self.asked}")


async def test_a_server_that_answers_ends_the_wait() -> None:
    """It is asked until it answers, and not once more."""
    server = Server(2)
    await wait_for_dependency(background(), server.ask, dependency="server", timeout_seconds=9)
    assert server.asked == 3


async def test_the_earlier_of_two_deadlines_ends_the_wait_with_the_last_error() -> None:
    """The argument's and the context's are both obeyed."""
    for ctx, seconds in ((background().with_timeout(0.05), 60), (background().with_timeout(60), 0.05)):
        with pytest.raises(DependencyUnavailable, match=r"no connection within .* last error: refusal 1"):
            await wait_for_dependency(ctx, Server(1_000).ask, dependency="server", timeout_seconds=seconds)


async def test_a_server_that_says_nothing_is_told_so() -> None:
    """No error is made up for one that never answered."""
    with pytest.raises(DependencyUnavailable, match="none, no answer at all"):
        await wait_for_dependency(background().with_timeout(0.05), lambda: asyncio.sleep(3_600), dependency="server")


async def test_a_cancelled_context_ends_the_wait() -> None:
    """A signal is told apart from a time that is up."""
    ctx = background().with_cancel()
    asyncio.get_running_loop().call_later(0.02, ctx.cancel)
    with pytest.raises(ContextCancelled):
        await wait_for_dependency(ctx, Server(1_000).ask, dependency="server")


async def test_any_other_error_ends_the_wait_at_once() -> None:
    """A mistake does not become better by asking again."""

    async def ask() -> None:
        raise LookupError("mistake")

    with pytest.raises(LookupError):
        await wait_for_dependency(background(), ask, dependency="server")
