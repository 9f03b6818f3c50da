"""Run an initialiser once, whoever comes first, as Go's sync.Once and sync.OnceValue.

Go's plain Once counts a failed call as done and hands out whatever is there for ever; both forms here remember the
failure and raise it again to every caller, as OnceValue does. Go has no cancellation: here a first caller who is
cancelled has neither a value nor a failure to share, so the next caller runs the initialiser. It builds; it does not
dial: since a failure is remembered for ever, waiting for a server belongs outside.
"""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, TypeVar, cast, overload

from patterns._budget import pay
from patterns.errors import DeadlockError

T = TypeVar("T")
OnceState = Literal["new", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class OnceStatistics:
    """How far the initialiser is, how many callers wait for it, and how often it was begun (again after a cancel)."""

    state: OnceState
    waiting: int
    attempts: int


class _Gate(Generic[T]):
    """Elect one caller, a task of any loop or a thread, to run the initialiser, and keep the others until it ends."""

    def __init__(self) -> None:
        # Held for a few bytecodes, never while the initialiser runs. Reentrant: the collector, which comes at any
        # moment, may close a lost runner, or a lost waiter, while its thread holds it.
        self._lock = threading.RLock()
        self._waiters: list[Future[None]] = []
        self._runner: int | None = None  # its id: a reference would keep a task alive whose event loop has died
        self._state: OnceState = "new"
        self._attempts = 0
        self._value: T | None = None
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None

    async def pass_through(self, fn: Callable[[], Awaitable[T] | T]) -> T:
        await pay()
        while not self._is_settled():
            waiter = self._join(asyncio.current_task())
            if waiter is None:
                return await self._run(fn)
            try:
                await asyncio.wrap_future(waiter)
            finally:
                self._leave(waiter)
        return self._outcome()

    def pass_through_sync(self, fn: Callable[[], Awaitable[T] | T], timeout_seconds: float | None) -> T:
        while not self._is_settled():
            if inspect.iscoroutinefunction(fn) and self._state == "new":
                raise RuntimeError("an asynchronous initialiser needs a task to run it")
            waiter = self._join(threading.current_thread())
            if waiter is None:
                return self._run_sync(fn)
            try:
                _refuse_to_block_a_loop()
                waiter.result(timeout_seconds)
            finally:
                self._leave(waiter)
        return self._outcome()

    def statistics(self) -> OnceStatistics:
        with self._lock:
            return OnceStatistics(self._state, len(self._waiters), self._attempts)

    async def _run(self, fn: Callable[[], Awaitable[T] | T]) -> T:
        try:
            made = fn()
            value = await made if inspect.isawaitable(made) else made
        except BaseException as error:
            self._fail(error)
            raise
        return self._succeed(value)

    def _run_sync(self, fn: Callable[[], Awaitable[T] | T]) -> T:
        try:
            made = fn()
        except BaseException as error:
            self._fail(error)
            raise
        if inspect.iscoroutine(made):
            made.close()
            self._settle("new")
            raise RuntimeError("an asynchronous initialiser needs a task to run it")
        return self._succeed(cast("T", made))

    def _join(self, caller: object) -> Future[None] | None:
        """Return what to wait for, or None to the caller who is to run the initialiser."""
        waiter: Future[None] = Future()
        with self._lock:
            if self._state == "new":
                self._state, self._runner = "running", id(caller)
                self._attempts += 1
                return None
            if self._state == "running" and self._runner == id(caller):
                raise DeadlockError("the initialiser asks for its own result")
            self._waiters.append(waiter)
            if self._state != "running":
                waiter.set_result(None)
        return waiter

    def _leave(self, waiter: Future[None]) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _succeed(self, value: T) -> T:
        self._value = value
        self._settle("done")
        return value

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._error, self._traceback = error, error.__traceback__
            self._settle("failed")
        else:  # cancelled or interrupted: that says nothing about the initialiser
            self._settle("new")

    def _settle(self, state: OnceState) -> None:
        with self._lock:
            self._state, self._runner = state, None
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if waiter.set_running_or_notify_cancel():
                waiter.set_result(None)

    def _is_settled(self) -> bool:
        return self._state in ("done", "failed")

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)  # else each raise would lengthen the same traceback
        return cast("T", self._value)


class Once:
    """Run the function of the first caller once; every other caller waits until it has ended.

    Whatever function later callers bring, it is not run. Safe among tasks, also of several loops, and threads. A waiter
    that is cancelled just leaves. If the runner is cancelled, the next caller runs its own function.
    """

    def __init__(self) -> None:
        self._gate: _Gate[object] = _Gate()

    async def do(self, fn: Callable[[], object]) -> None:
        """Run fn, plain or async, unless some function was run already; return when that one has ended.

        Raises:
            Exception: What the one function raised, again to every caller.
            DeadlockError: Called from inside the function that runs.
        """
        await self._gate.pass_through(fn)

    def do_sync(self, fn: Callable[[], object], timeout_seconds: float | None = None) -> None:
        """Do the same in a thread. The timeout limits the wait for another caller's function, not one's own.

        Raises:
            Exception: What the one function raised, again to every caller.
            TimeoutError: Another caller's function took too long; it goes on.
            RuntimeError: fn is async and nobody runs one, or the thread runs an event loop that this would block.
            DeadlockError: Called from inside the function that runs.
        """
        self._gate.pass_through_sync(fn, timeout_seconds)

    def statistics(self) -> OnceStatistics:
        """Return how far the function is and who waits for it."""
        return self._gate.statistics()


class OnceValue(Generic[T]):
    """Build a value once, when it is first asked for, and give the same value to everyone.

    Safe among tasks, also of several loops, and threads. The initialiser may be plain (it then runs in whichever task
    or thread asks first, and blocks it) or async. A waiter that is cancelled just leaves. If the task that runs the
    initialiser is cancelled, the next caller runs it anew.
    """

    @overload
    def __init__(self, fn: Callable[[], Awaitable[T]]) -> None: ...
    @overload
    def __init__(self, fn: Callable[[], T]) -> None: ...
    def __init__(self, fn: Callable[[], Awaitable[T] | T]) -> None:
        self._fn = fn
        self._gate: _Gate[T] = _Gate()

    async def get(self) -> T:
        """Return the value; the first caller builds it, the others wait.

        Raises:
            Exception: What the initialiser raised, again to every caller.
            DeadlockError: Called from inside the initialiser.
        """
        return await self._gate.pass_through(self._fn)

    def get_sync(self, timeout_seconds: float | None = None) -> T:
        """Do the same in a thread. The timeout limits the wait for another caller's run, not one's own.

        Raises:
            Exception: What the initialiser raised, again to every caller.
            TimeoutError: Another caller's run took too long; it goes on.
            RuntimeError: The initialiser is async and no task runs it, or this thread runs a loop that would be
                blocked.
            DeadlockError: Called from inside the initialiser.
        """
        return self._gate.pass_through_sync(self._fn, timeout_seconds)

    def statistics(self) -> OnceStatistics:
        """Return how far the initialiser is and who waits for it."""
        return self._gate.statistics()


def _refuse_to_block_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("this would block the running event loop; await the asynchronous form instead")
