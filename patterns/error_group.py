"""Run functions side by side and end them together when one fails, as Go's golang.org/x/sync/errgroup.

Go can only cancel the group's context and hope that the functions look at it; asyncio also cancels the sibling tasks,
which see it at their next await. Go lets a panic end the process; here every exception is carried to `wait`. Go's zero
Group, which cancels nobody, is the policy "all".

asyncio's own TaskGroup always raises a group and has no limit, and until 3.12 it swallows a cancel from outside that
arrives while it is ending its tasks.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeVarTuple

from patterns._budget import pay
from patterns._interruption import count_seen_cancels
from patterns._lost_body import is_lost
from patterns._waiter import when_free
from patterns.channel import Channel
from patterns.context import Context, background
from patterns.errors import EndOfChannel, WouldBlock

Ts = TypeVarTuple("Ts")
ErrorGroupPolicy = Literal["first", "all"]
_Task = asyncio.Task[Any]  # Any: a task's result is of no interest here


@dataclass(frozen=True, slots=True)
class ErrorGroupStatistics:
    """How many functions of a group run, have begun and have failed, its limit, and whether it has been cancelled."""

    running: int
    begun: int
    failed: int
    limit: int | None
    is_cancelled: bool


class ErrorGroup:
    """Run functions as tasks that share one fate; use it as `async with`, or call `go` and then `wait`.

    With the policy "first" the first function that fails ends the group: the context is cancelled with that error as
    its cause, the sibling tasks are cancelled, `wait` raises that error when all have ended, and later errors are kept
    in `errors`. With the policy "all" nobody is cancelled and `wait` raises every error in one ExceptionGroup.

    The body of `async with` is one of the siblings: it is cancelled with them, and its failure ends them. A cancel from
    outside, of the body or of `wait`, cancels all functions, waits for them, and has the last word: CancelledError is
    raised, with the first error, if there is one, as its `__cause__`. The parent context is not watched: its end is
    advice to the functions through `ctx`, as in Go, so that they can finish what they have in hand.

    Args:
        ctx: The parent of the group's context; the background if left out.
        limit: How many functions may run at once, 0 or more; None for no limit.
        policy: What an error does, as above.
    """

    def __init__(
        self, ctx: Context | None = None, *, limit: int | None = None, policy: ErrorGroupPolicy = "first"
    ) -> None:
        if policy not in ("first", "all"):
            raise ValueError(f"policy must be 'first' or 'all', not {policy!r}")
        self._ctx = (ctx or background()).with_cancel()
        self._policy = policy
        self._tasks: set[_Task] = set()
        self._waiters: list[asyncio.Future[None]] = []
        self._errors: list[BaseException] = []
        self._begun = 0
        self._asking = 0  # calls of `go` that have not yet begun their function
        self._is_cancelled = False
        self._is_over = False
        self._body: _Task | None = None  # while the body of `async with` runs
        self._body_cancels_before = 0
        self._has_cancelled_body = False
        self.set_limit(limit)

    @property
    def ctx(self) -> Context:
        """The group's context. It ends with the first error as its cause, or when `wait` returns."""
        return self._ctx

    @property
    def errors(self) -> tuple[BaseException, ...]:
        """The errors so far, in the order in which they came. A cancelled function is no error."""
        return tuple(self._errors)

    def set_limit(self, limit: int | None) -> None:
        """Change how many functions may run at once.

        Raises:
            ValueError: The limit is negative.
            RuntimeError: Functions are running, or wait for a place.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit must be 0 or more, or None, not {limit}")
        if self._tasks or self._asking:
            raise RuntimeError(
                f"the limit cannot change while {len(self._tasks)} functions run and {self._asking} wait for a place"
            )
        self._limit = limit
        self._slots: Channel[None] | None = None
        if limit is not None:
            self._slots = Channel(limit)
            for _ in range(limit):
                self._slots.send_nowait(None)
            if self._is_cancelled:
                self._slots.close()

    async def go(self, fn: Callable[[*Ts], Coroutine[Any, Any, object]], *args: *Ts) -> None:
        """Start fn(*args) as a task; with a limit, wait for a free place first, in the order of asking.

        In a group that was cancelled the function is not begun, as if it had been cancelled at once. A cancel while
        waiting for a place leaves the group as it was.

        Raises:
            RuntimeError: `wait` has returned, perhaps while this call waited; nobody would hear of an error.
        """
        self._refuse_when_over()
        self._asking += 1
        try:
            if self._slots is None:
                await pay()
            else:
                with suppress(EndOfChannel):
                    await self._slots.receive()
        finally:
            self._asking -= 1
        self._start(fn, args)

    def try_go(self, fn: Callable[[*Ts], Coroutine[Any, Any, object]], *args: *Ts) -> bool:
        """Start fn(*args) if a place is free and the group was not cancelled; return whether it did.

        Raises:
            RuntimeError: `wait` has returned.
        """
        self._refuse_when_over()
        if self._slots is not None:
            try:
                self._slots.receive_nowait()
            except (EndOfChannel, WouldBlock):
                return False
        return self._start(fn, args)

    def cancel(self, cause: BaseException | None = None) -> None:
        """Cancel the group's context, all its functions and, unless it is the caller, the body. Idempotent."""
        if self._is_cancelled:
            return
        self._is_cancelled = True
        self._ctx.cancel(cause)
        self._close_slots()
        for task in self._tasks:
            task.cancel()
        if self._body is not None and self._body is not asyncio.current_task():
            self._has_cancelled_body = True
            self._body.cancel()

    async def wait(self) -> None:
        """Wait until all functions have ended, then end the group and its context.

        Raises:
            BaseException: By the policy, the first error or an ExceptionGroup of all; again if called again.
            CancelledError: The caller was cancelled meanwhile. By then the functions were, and have ended.
        """
        if failure := await self._settle(None):
            raise failure

    async def __aenter__(self) -> Self:
        self._body = asyncio.current_task()
        self._body_cancels_before = count_seen_cancels(self._body) if self._body else 0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        body, self._body = self._body, None
        if is_lost(body, error):  # and its functions with it: the group holds its body
            when_free(self._ctx.cancel)
            return False
        outer = error if isinstance(error, asyncio.CancelledError) else None
        if self._has_cancelled_body and body and body.uncancel() <= self._body_cancels_before:
            outer = None  # the only cancel was ours
        if outer is not None:
            self.cancel()
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            self._fail(error)
        failure = await self._settle(outer)
        if failure is None or failure is error:
            return failure is None
        raise failure

    def statistics(self) -> ErrorGroupStatistics:
        """Return how many functions run, have begun and have failed."""
        return ErrorGroupStatistics(len(self._tasks), self._begun, len(self._errors), self._limit, self._is_cancelled)

    def _start(self, fn: Callable[[*Ts], Coroutine[Any, Any, object]], args: tuple[*Ts]) -> bool:
        if self._is_cancelled:
            return False
        self._refuse_when_over()
        self._begun += 1
        task = asyncio.create_task(_run(fn, args), name=getattr(fn, "__qualname__", None))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return True

    def _end(self, task: _Task) -> None:
        self._tasks.discard(task)
        if self._slots is not None and not self._is_cancelled:
            self._slots.send_nowait(None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
        if not self._tasks:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    def _fail(self, error: BaseException) -> None:
        self._errors.append(error)
        if self._policy == "first":
            self.cancel(error)

    async def _settle(self, outer: asyncio.CancelledError | None) -> BaseException | None:
        """Wait for all functions, whatever happens, and return what is to be raised."""
        while self._tasks:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError as error:
                outer = error
                self.cancel()
        self._is_over = True
        self._close_slots()
        self._ctx.cancel()
        if outer is not None:
            outer.__cause__ = self._errors[0] if self._errors else None
            return outer
        if self._errors and self._policy == "all":
            return BaseExceptionGroup(f"{len(self._errors)} functions of an error group failed", self._errors)
        return self._errors[0] if self._errors else None

    def _close_slots(self) -> None:
        """Let whoever waits for a place hear that there will be none."""
        if self._slots is not None and not self._slots.is_closed:
            self._slots.close()

    def _refuse_when_over(self) -> None:
        if self._is_over:
            raise RuntimeError("the group has ended: make another one")


async def _run(fn: Callable[[*Ts], Coroutine[Any, Any, object]], args: tuple[*Ts]) -> None:
    await fn(*args)
