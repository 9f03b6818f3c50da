"""An event loop that runs neighbouring task steps in a random order, to find interleavings that luck hides.

asyncio promises no order among tasks that are ready together, but always keeps one. This loop shuffles them, and only
them: callbacks stay where they are, for sockets, futures and timers rely on their order. A seed gives the same order
again.
"""

import asyncio
import gc
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from itertools import groupby
from typing import Any, TypeVar, TypeVarTuple

from patterns.bubble import BubbleLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Shuffling(asyncio.BaseEventLoop):
    _ready: deque[asyncio.Handle]  # asyncio's own queue of what is to run next

    def __init__(self) -> None:
        super().__init__()
        self.random = random.Random(0)
        self.faults: list[str] = []
        self.set_exception_handler(self._note_fault)

    def _run_once(self) -> None:
        # A thread may add to asyncio's queue at any time: take out what is there now, and put it back before the rest.
        ready = [self._ready.popleft() for _ in range(len(self._ready))]
        order: list[asyncio.Handle] = []
        for is_step, handles in groupby(ready, _is_task_step):
            neighbours = list(handles)
            if is_step:
                self.random.shuffle(neighbours)
            order.extend(neighbours)
        self._ready.extendleft(reversed(order))
        super()._run_once()  # type: ignore[misc]  # asyncio's own step of the loop, not in its stubs

    def _note_fault(self, _: asyncio.AbstractEventLoop, fault: dict[str, Any]) -> None:
        self.faults.append(f"{fault['message']}: {fault.get('exception')!r} {fault.get('task', '')}")


class ShufflingLoop(_Shuffling, BubbleLoop):
    """Shuffles on the virtual clock of a bubble."""


class ShufflingRealLoop(_Shuffling, asyncio.SelectorEventLoop):
    """Shuffles on the real clock, for tests with threads."""


def run_shuffled(
    fn: Callable[[*Ts], Coroutine[Any, Any, T]],
    *args: *Ts,
    seeds: Iterable[int] = range(100),
    loop_class: type[ShufflingLoop | ShufflingRealLoop] = ShufflingLoop,
) -> list[T]:
    """Run fn(*args) once for each seed, each time in a new loop, and return all results.

    Any error fails the test with its seed, also one that only reached a loop's exception handler.
    """
    results = []
    loops = {}
    for seed in seeds:
        loop = loop_class()
        loop.random.seed(seed)
        loops[seed] = loop
        try:
            with asyncio.Runner(loop_factory=lambda loop=loop: loop) as runner:  # type: ignore[misc]  # bound early
                results.append(runner.run(fn(*args)))
                if isinstance(loop, BubbleLoop):
                    loop.finish()
        except BaseException as error:
            print(f"seed {seed}")  # noqa: T201  # pytest shows it with the failure
            error.add_note(f"seed {seed}: run_shuffled(..., seeds=[{seed}]) repeats it")
            raise
    gc.collect()  # a task that nobody looked at reports its error when it is collected
    faults = [f"seed {seed}: {fault}" for seed, loop in loops.items() for fault in loop.faults]
    assert not faults, "\n".join(faults)
    return results


def _is_task_step(handle: asyncio.Handle) -> bool:
    return isinstance(getattr(handle._callback, "__self__", None), asyncio.Task)  # type: ignore[attr-defined]  # private in asyncio
