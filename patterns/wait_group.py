"""Wait until a number of tasks or threads have finished, as Go's sync.WaitGroup.

Go lets a panic in a goroutine end the process; here an exception in a `go` function comes out of `wait`. Misuse raises
at once. Go panics for some of it, and leaves the most common one, an `add` inside the task that it should have counted
beforehand, to vet.
"""

import asyncio
import inspect
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVarTuple, cast

from patterns._budget import pay
from patterns._waiter import Signal, TaskWaiter, matching, when_free
from patterns.errors import WaitGroupMisuseError

Ts = TypeVarTuple("Ts")
_Task = asyncio.Task[Any]  # Any: a task's result is of no interest here


@dataclass(frozen=True, slots=True)
class WaitGroupStatistics:
    """What is still counted, how many tasks wait for it, and how many `go` functions failed since the last round."""

    count: int
    waiting: int
    failed: int


class _Wait(TaskWaiter):
    __slots__ = ("__weakref__",)


class WaitGroup:
    """Count work that is under way and wait for its end.

    `add` and `done` may be called from any thread; `go` and `wait` belong to tasks. A cancelled `wait` just leaves: the
    group does not own its tasks and cancels nothing (an ErrorGroup does). After a wait the group may be used again.
    """

    def __init__(self) -> None:
        self._count = 0
        self._waiters: list[_Wait] = []
        # Told of the end but not yet back. Weak: a wait whose event loop was closed since never comes back.
        self._returning: weakref.WeakSet[_Wait] = weakref.WeakSet()
        self._running: set[_Task] = set()  # the loop itself keeps only weak references
        self._failed: list[_Task] = []
        self._is_reported = False
        self._was_used = False
        self._late: set[_Task] = set()  # about to take their first step, after a wait that found nothing

    def add(self, n: int = 1) -> None:
        """Count n more pieces of work, or fewer if n is negative.

        Raises:
            WaitGroupMisuseError: The count would be negative; or it was zero and a wait has yet to return, or has
                returned without this task, which had not begun by then and adds before it first waits for anything.
        """
        task = _current_task()
        with matching:
            if self._count + n < 0:
                raise WaitGroupMisuseError(f"the count would be {self._count + n}: more done() than add()")
            if self._count == 0 and n > 0:
                self._open_round(task)
            self._count += n
            if self._count == 0:
                self._returning.update(waiter for waiter in self._waiters if waiter.end(Signal.LOOK_AGAIN))
                self._waiters.clear()

    def done(self) -> None:
        """Count one piece of work as finished.

        Raises:
            WaitGroupMisuseError: Nothing was counted.
        """
        self.add(-1)

    def go(self, fn: Callable[[*Ts], Coroutine[Any, Any, object]], *args: *Ts) -> None:
        """Count one, start fn(*args) as a task, and count it as done when it ends, however it ends.

        A function that is cancelled counts as ended, not as failed.

        Raises:
            WaitGroupMisuseError: As `add` raises it.
        """
        self.add()
        task = asyncio.create_task(self._run(fn, args), name=getattr(fn, "__qualname__", None))
        self._running.add(task)
        task.add_done_callback(self._end)

    async def wait(self) -> None:
        """Wait until nothing is counted; return at once if nothing is.

        Raises:
            ExceptionGroup: All exceptions of the `go` functions since the last round, when the last function has ended.
                Every wait of the same round raises them. If nobody waits, asyncio reports each as never retrieved.
        """
        await pay()
        waiter = _Wait()
        with matching:
            is_waiting = self._count > 0
            if is_waiting:
                self._waiters.append(waiter)
        if is_waiting:
            await self._return_of(waiter)
        elif not self._was_used:  # nothing was ever counted: perhaps a task is about to, too late
            self._mark_late()
        self._was_used = False
        self._is_reported = True
        if self._failed:
            errors = [error for task in self._failed if (error := task.exception()) is not None]
            raise BaseExceptionGroup(f"{len(errors)} functions of a wait group failed", errors)

    def statistics(self) -> WaitGroupStatistics:
        """Return what is counted, who waits and what failed."""
        with matching:
            return WaitGroupStatistics(self._count, len(self._waiters), len(self._failed))

    def _mark_late(self) -> None:
        """Note the tasks that have not begun, until they have taken their first step.

        A task that adds later may be one that serves all the time and opens the next round.
        """
        late = set(filter(_has_not_begun, asyncio.all_tasks()))
        self._late |= late
        asyncio.get_running_loop().call_soon(self._late.difference_update, late)

    async def _return_of(self, waiter: _Wait) -> None:
        try:
            await waiter.wait()
        except GeneratorExit:
            when_free(partial(self._forget, waiter))
            raise
        except BaseException:
            self._forget(waiter)
            raise
        self._forget(waiter)

    def _forget(self, waiter: _Wait) -> None:
        with matching:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            self._returning.discard(waiter)

    def _open_round(self, task: _Task | None) -> None:
        if self._returning:
            raise WaitGroupMisuseError("used again before the last wait has returned")
        if task in self._late:
            raise WaitGroupMisuseError("add() inside the task came after the wait: add before the task is created")
        self._was_used = True
        if self._is_reported:
            self._failed = []
            self._is_reported = False

    async def _run(self, fn: Callable[[*Ts], Coroutine[Any, Any, object]], args: tuple[*Ts]) -> None:
        try:
            await fn(*args)
        except asyncio.CancelledError:
            raise
        except BaseException:
            # Its exception is fetched by wait, or else reported by asyncio.
            self._failed.append(cast("_Task", asyncio.current_task()))
            raise

    def _end(self, task: _Task) -> None:
        self._running.discard(task)
        self.done()


def _current_task() -> _Task | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread
        return None


def _has_not_begun(task: _Task) -> bool:
    coroutine = task.get_coro()
    return inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
