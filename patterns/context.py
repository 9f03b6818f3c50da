"""Context: a deadline, a cancellation and request-scoped values, handed down a tree of calls.

How Go differs: its ``with...`` functions return a context and a cancel function, here the context that was derived
has the method ``cancel``, and leaving its ``with`` block calls it. Cancelling is advice in Go, where nothing
interrupts a goroutine; here too a context interrupts nothing by itself, but ``await ctx.run(...)`` ends what it
awaits, since asyncio can.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from patterns._budget import pay
from patterns._core import Core
from patterns._interruption import Interruption
from patterns._launch import build_launcher
from patterns._scope import ROOT, Scope
from patterns._timer import current_clock
from patterns._waiter import when_free
from patterns.channel import ReceiveChannel
from patterns.errors import ContextCancelled, ContextError, EndOfChannel
from patterns.select import Outcome, receive, select_sync

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ContextStatistics:
    """A context at one instant; children and after_funcs are those that still have to be told of its end."""

    is_done: bool
    remaining_seconds: float | None
    children: int
    after_funcs: int


def background() -> Context:
    """The root of every tree: never done, no deadline, no values."""
    return _BACKGROUND


class Context:
    """One node of the tree, usable from any task and thread at once.

    When a context ends, by ``cancel``, by its deadline or with its parent, every context derived from it has ended
    before ``cancel`` returns, and whoever waits for one of them is woken at once, in whatever thread. The first cause
    wins and is inherited. Times are seconds on the clock of the event loop in which the context was derived,
    ``time.monotonic()`` for one derived in a thread.

    A context that is derived with a cancel or a deadline must be cancelled when it is no longer needed, else its
    parent keeps it: use it in a ``with`` block.
    """

    __slots__ = ("__weakref__", "_owns_scope", "_scope", "_values")

    def __init__(self, scope: Scope, values: Mapping[object, object], *, owns_scope: bool) -> None:
        self._scope = scope
        self._values = values
        self._owns_scope = owns_scope

    # Deriving.

    def with_cancel(self) -> Context:
        """Derive a context that can be cancelled."""
        return Context(self._scope.derive(), self._values, owns_scope=True)

    def with_timeout(self, seconds: float) -> Context:
        """Derive a context that ends after some seconds, or with this one; at birth if that is zero or less.

        Raises:
            ValueError: the number of seconds is NaN.
        """
        return self.with_deadline(current_clock().now() + seconds)

    def with_deadline(self, at: float) -> Context:
        """Derive a context that ends at a time of the current clock, or with this one; at birth if it has passed.

        Raises:
            ValueError: the time is NaN.
        """
        return Context(self._scope.derive_until(at, current_clock()), self._values, owns_scope=True)

    def with_value(self, key: object, value: object) -> Context:
        """Derive a context that carries a value, under a hashable key, and ends exactly when this one does."""
        return Context(self._scope, {**self._values, key: value}, owns_scope=False)

    def without_cancel(self) -> Context:
        """Derive a context with the values of this one, but neither its end nor its deadline."""
        return Context(ROOT, self._values, owns_scope=False)

    # Ending.

    def cancel(self, cause: BaseException | None = None) -> None:
        """End this context and all below it, from any thread; without effect if it has ended.

        Raises:
            RuntimeError: the context has no end of its own (``background``, ``with_value``, ``without_cancel``); only
                who derived a context may end it, as in Go. Or all have ended, but a thread for an ``after_func`` could
                not be started; several such errors come as a group.
        """
        if not self._owns_scope:
            raise RuntimeError("this context has no end of its own: cancel one made by with_cancel, or with a deadline")
        self._scope.end(ContextCancelled("context cancelled"), cause)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._owns_scope:
            return
        if exc_type is GeneratorExit:  # the coroutine is being closed, by the collector perhaps
            when_free(self.cancel)
        else:
            self.cancel()

    # Looking.

    @property
    def is_done(self) -> bool:
        """Whether the context has ended."""
        return self._scope.err is not None

    @property
    def err(self) -> ContextError | None:
        """Why the context has ended: ``ContextCancelled`` or ``DeadlineExceeded``; None while it has not."""
        return self._scope.err

    @property
    def cause(self) -> BaseException | None:
        """What the first ``cancel`` that ended it gave as the cause, else ``err``; None while it has not ended."""
        return self._scope.cause

    @property
    def done(self) -> ReceiveChannel[None]:
        """The channel that is closed when the context ends: ``select(receive(ctx.done), ...)``."""
        # The root never ends: who waits for that waits at a channel of its own, so as not to hang from a global.
        return ReceiveChannel(Core(0) if self._scope is ROOT else self._scope.done)

    @property
    def deadline(self) -> float | None:
        """The earliest deadline here or above, in seconds on the clock it was set by."""
        return self._scope.deadline

    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 once it has passed; None without one."""
        return self._scope.remaining()

    def value(self, key: object) -> object | None:
        """The value last set for the key, here or above; None if there is none."""
        return self._values.get(key)

    def raise_if_done(self) -> None:
        """Raise what ``err`` holds, a fresh copy, if the context has ended.

        Raises:
            ContextCancelled: it was cancelled; ``__cause__`` is its cause if one was given.
            DeadlineExceeded: its deadline passed.
        """
        err, cause = self._scope.err, self._scope.cause
        if err is not None:
            raise type(err)(*err.args) from (None if cause is err else cause)

    def statistics(self) -> ContextStatistics:
        """Look at the context without touching it."""
        children, hooks = self._scope.counts()
        return ContextStatistics(self.is_done, self.remaining(), children, hooks)

    # Waiting.

    async def wait(self) -> None:
        """Wait until the context ends."""
        with contextlib.suppress(EndOfChannel):
            await self.done.receive()

    def wait_sync(self, timeout_seconds: float | None = None) -> bool:
        """Block the thread until the context ends; False if the time was up first."""
        return select_sync(receive(self.done), timeout_seconds=timeout_seconds) is not Outcome.TIMEOUT

    async def run(self, awaitable: Awaitable[T]) -> T:
        """Await something, and cancel it when the context ends.

        What is awaited sees ``CancelledError`` at its next await and may clean up, for as long as it likes; if it
        ends with a result or another error all the same, that is the outcome. A cancel of the calling task is never
        eaten: if both come, ``CancelledError`` is raised and ``task.cancelling()`` counts as without ``run``.

        Raises:
            ContextCancelled: the context was cancelled, perhaps before (then nothing is awaited).
            DeadlineExceeded: its deadline passed, perhaps before.
        """
        try:
            await pay()
            self.raise_if_done()
        except BaseException:
            _discard(awaitable)
            raise
        interruption = Interruption(self._scope)
        try:
            result = await awaitable
        except asyncio.CancelledError:
            if interruption.end():
                self.raise_if_done()
            raise
        except GeneratorExit:
            interruption.drop()
            raise
        except BaseException:
            interruption.end()
            raise
        interruption.end()
        return result

    def after_func(self, function: Callable[[], object]) -> Callable[[], bool]:
        """Call a function, async or plain, once, when the context ends: at once if it has ended.

        It runs in a task of its own on the event loop in which ``after_func`` was called, else in a thread of its
        own. What it raises goes to the loop's, or the thread's, exception hook.

        Returns:
            A function that prevents the call and says whether it did: False when the call has begun, or was prevented
            before. It does not wait for a call that has begun.

        Raises:
            TypeError: an async function, and no event loop runs here.
        """
        return self._scope.add_hook(build_launcher(function))


_BACKGROUND = Context(ROOT, {}, owns_scope=False)


def _discard(awaitable: Awaitable[object]) -> None:
    """Give up what is not going to be awaited."""
    if inspect.iscoroutine(awaitable):
        awaitable.close()
    elif isinstance(awaitable, asyncio.Future):
        awaitable.cancel()
