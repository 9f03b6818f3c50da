"""The ends of a channel as threads see them: the same operations, blocking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from patterns._case import Case, Receive, Send
from patterns._core import Core
from patterns._waiter import matching
from patterns.errors import EndOfChannel
from patterns.select import Outcome, receive, select_sync

if TYPE_CHECKING:
    from patterns.context import Context

T = TypeVar("T")


class SyncReceiveChannel(Generic[T]):
    """The receiving end for threads."""

    __slots__ = ("_core",)

    def __init__(self, core: Core[T]) -> None:
        self._core = core

    def receive(self, timeout_seconds: float | None = None, ctx: Context | None = None) -> T:
        """Take the oldest value; block until there is one, the time is up or the context ends, whichever is first.

        Raises:
            EndOfChannel: the channel is closed and every value has been taken.
            TimeoutError: no value came in time.
            ContextError: the context ended; its ``err``.
        """
        case = Receive(self._core)
        _wait(case, timeout_seconds, ctx)
        return case.value

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return self.receive()
        except EndOfChannel:
            raise StopIteration from None


class SyncChannel(SyncReceiveChannel[T]):
    """Both ends for threads."""

    __slots__ = ()

    def send(self, value: T, timeout_seconds: float | None = None, ctx: Context | None = None) -> None:
        """Send a value; block until it is taken or buffered, the time is up or the context ends, whichever is first.

        A send that raised ``TimeoutError`` or ``ContextError`` has not happened.

        Raises:
            ChannelClosedError: the channel is closed, or was closed while this send waited.
            TimeoutError: nobody took it in time.
            ContextError: the context ended; its ``err``.
        """
        _wait(Send(self._core, value), timeout_seconds, ctx)

    def close(self) -> None:
        """Close the channel, as ``Channel.close`` does."""
        with matching:
            self._core.close()


def _wait(case: Case, timeout_seconds: float | None, ctx: Context | None) -> None:
    if ctx is None:
        chosen = select_sync(case, timeout_seconds=timeout_seconds)
    else:
        chosen = select_sync(case, receive(ctx.done), timeout_seconds=timeout_seconds)
    if chosen is Outcome.TIMEOUT:
        raise TimeoutError(f"not done within {timeout_seconds} s")
    if chosen is not case and ctx is not None:
        ctx.raise_if_done()
