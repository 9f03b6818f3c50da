"""Mutual exclusion between tasks, as Go's sync.Mutex and sync.RWMutex.

Go keeps no owner, so any goroutine may unlock, and a woken waiter competes with newcomers. Here the task that locked is
the one that unlocks, and the turn goes to whoever has waited longest. Tasks of one event loop never run in parallel, so
a mutex matters only where the critical section awaits. It belongs to one loop; between threads use threading.Lock.

To lock within a time or a context use asyncio.timeout or `ctx.run`, which await in the task itself. asyncio.wait_for in
Python 3.11, as asyncio.gather in all, awaits in a task of its own, which would be the owner, and end.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from patterns._budget import pay
from patterns.errors import DeadlockError, NotLockedError

_Task = asyncio.Task[Any]  # Any: a task's result is of no interest here


@dataclass(frozen=True, slots=True)
class MutexStatistics:
    """Who holds a mutex, by task name, and how many tasks wait for it."""

    owner: str | None
    waiting: int


@dataclass(frozen=True, slots=True)
class RWMutexStatistics:
    """Who holds a reader/writer mutex, and how many tasks wait for it."""

    readers: int
    writer: str | None
    waiting_readers: int
    waiting_writers: int


class RWMutex:
    """Let any number of tasks read at once, or one task write.

    Turns are given in the order of asking, and neighbouring readers share one. A reader who comes while a writer waits
    queues behind it, so neither side starves. A wait that is cancelled leaves the queue; if its turn had come in the
    same tick, the turn passes on. Not reentrant, and a reader cannot become a writer: trying raises instead of hanging.
    """

    def __init__(self) -> None:
        self._readers: set[_Task] = set()
        self._writer: _Task | None = None
        self._queue: deque[_Turn] = deque()

    def read(self) -> "_Hold":
        """Return a context manager that holds the mutex for reading: `async with rw.read():`.

        Raises:
            DeadlockError: On entering, if this task holds the mutex already.
            NotLockedError: On leaving, if this task does not hold it.
        """
        return _Hold(self, is_writer=False)

    def write(self) -> "_Hold":
        """Return a context manager that holds the mutex alone: `async with rw.write():`. It raises as `read` does."""
        return _Hold(self, is_writer=True)

    def statistics(self) -> RWMutexStatistics:
        """Return who holds the mutex and how many wait."""
        writers = sum(turn.is_writer for turn in self._queue)
        return RWMutexStatistics(
            readers=len(self._readers),
            writer=self._writer.get_name() if self._writer else None,
            waiting_readers=len(self._queue) - writers,
            waiting_writers=writers,
        )

    async def _acquire(self, *, is_writer: bool) -> None:
        await pay()
        task = _current_task()
        if self._is_held_by(task):
            raise DeadlockError(f"task {task.get_name()!r} holds this mutex already and would wait for itself")
        if not self._queue and self._admit(task, is_writer=is_writer):
            return
        turn = _Turn(task, asyncio.get_running_loop().create_future(), is_writer)
        self._queue.append(turn)
        try:
            await turn.future
        except BaseException:
            if self._is_held_by(task):  # the turn came in the tick of the cancel
                self._release(task)
            else:
                _leave(self._queue, turn)
                self._give_turns()  # a writer that leaves may have held back readers
            raise

    def _release(self, task: _Task) -> None:
        if self._writer is task:
            self._writer = None
        elif task in self._readers:
            self._readers.remove(task)
        else:
            raise NotLockedError(f"task {task.get_name()!r} does not hold this mutex")
        self._give_turns()

    def _is_held_by(self, task: _Task) -> bool:
        return self._writer is task or task in self._readers

    def _admit(self, task: _Task, *, is_writer: bool) -> bool:
        if self._writer or (is_writer and self._readers):
            return False
        if is_writer:
            self._writer = task
        else:
            self._readers.add(task)
        return True

    def _give_turns(self) -> None:
        """Admit from the head of the queue whoever may enter now."""
        while self._queue:
            turn = self._queue[0]
            if not turn.future.done():  # else it was cancelled and is about to leave
                if not self._admit(turn.task, is_writer=turn.is_writer):
                    return
                turn.future.set_result(None)
            self._queue.popleft()


class Mutex:
    """Let one task at a time through: `async with mutex:`, or `lock` and `unlock`.

    Turns are given in the order of asking. A wait that is cancelled leaves the queue; if its turn had come in the same
    tick, the turn passes on. Not reentrant: locking twice raises instead of hanging.
    """

    def __init__(self) -> None:
        self._owner: _Task | None = None
        self._queue: deque[_Turn] = deque()

    async def lock(self) -> None:
        """Wait for the turn of this task, behind all who asked before. Not for asyncio.wait_for: see the module.

        Raises:
            DeadlockError: This task holds the mutex already.
        """
        await pay()
        task = _current_task()
        if self.try_lock():
            return
        if self._owner is task:
            raise DeadlockError(f"task {task.get_name()!r} holds this mutex already and would wait for itself")
        turn = _Turn(task, asyncio.get_running_loop().create_future())
        self._queue.append(turn)
        try:
            await turn.future
        except BaseException:
            if self._owner is task:  # the turn came in the tick of the cancel
                self._pass_on()
            else:
                _leave(self._queue, turn)
            raise

    def try_lock(self) -> bool:
        """Lock if nobody holds the mutex; return whether it did."""
        if self._owner is not None:
            return False
        self._owner = _current_task()
        return True

    def unlock(self) -> None:
        """Give the turn to the task that has waited longest.

        Raises:
            NotLockedError: This task does not hold the mutex.
        """
        task = _current_task()
        if self._owner is not task:
            raise NotLockedError(f"task {task.get_name()!r} does not hold this mutex")
        self._pass_on()

    async def __aenter__(self) -> None:
        await self.lock()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unlock()

    def statistics(self) -> MutexStatistics:
        """Return who holds the mutex and how many wait."""
        return MutexStatistics(self._owner.get_name() if self._owner else None, len(self._queue))

    def _pass_on(self) -> None:
        self._owner = None
        while self._queue and self._owner is None:
            turn = self._queue.popleft()
            if not turn.future.done():  # else it was cancelled and is about to leave
                self._owner = turn.task
                turn.future.set_result(None)


@dataclass(eq=False, slots=True)
class _Turn:
    """A place in a queue; its future is done when the turn has come, or when the wait was cancelled."""

    task: _Task
    future: asyncio.Future[None]
    is_writer: bool = True


def _leave(queue: deque[_Turn], turn: _Turn) -> None:
    with suppress(ValueError):  # whoever gave turns since the cancel has taken it out already
        queue.remove(turn)


class _Hold:
    __slots__ = ("_is_writer", "_mutex")

    def __init__(self, mutex: RWMutex, *, is_writer: bool) -> None:
        self._mutex = mutex
        self._is_writer = is_writer

    async def __aenter__(self) -> None:
        await self._mutex._acquire(is_writer=self._is_writer)  # noqa: SLF001  # one module, one concept

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._mutex._release(_current_task())  # noqa: SLF001  # one module, one concept


def _current_task() -> _Task:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a mutex is for tasks; a callback has nothing to wait with")
    return task
