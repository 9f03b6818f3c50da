"""Mutex and RWMutex."""

import asyncio

import pytest

from patterns.bubble import bubble, wait_idle
from patterns.errors import DeadlockError, NotLockedError
from patterns.mutex import Mutex, MutexStatistics, RWMutex, RWMutexStatistics
from tests.support.shuffling_loop import run_shuffled

SEEDS = range(1_000)


def test_critical_sections_never_overlap() -> None:
    """Of ten tasks that await inside the mutex, one at a time is inside, in every one of 100 interleavings."""

    async def main() -> None:
        mutex = Mutex()
        inside = 0

        async def enter() -> None:
            nonlocal inside
            for _ in range(3):
                async with mutex:
                    inside += 1
                    assert inside == 1
                    await asyncio.sleep(0)
                    inside -= 1

        await asyncio.gather(*(enter() for _ in range(10)))

    run_shuffled(main)


def test_turns_come_in_the_order_of_asking() -> None:
    """Tasks get the mutex in the order in which they asked, and a newcomer does not overtake them."""

    async def main() -> list[int]:
        mutex = Mutex()
        order: list[int] = []

        async def enter(number: int) -> None:
            async with mutex:
                order.append(number)

        await mutex.lock()
        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(enter(number)))
            await wait_idle()
        mutex.unlock()
        assert mutex.try_lock() is False  # the turn is given already, though nobody has run yet
        tasks.append(asyncio.create_task(enter(5)))
        await asyncio.gather(*tasks)
        return order

    assert bubble(main) == [0, 1, 2, 3, 4, 5]


def test_unlock_by_a_stranger_raises_and_changes_nothing() -> None:
    """Neither another task nor anybody without a lock can unlock."""

    async def main() -> None:
        mutex = Mutex()
        with pytest.raises(NotLockedError, match="does not hold"):
            mutex.unlock()
        await mutex.lock()

        async def stranger() -> None:
            with pytest.raises(NotLockedError, match="does not hold"):
                mutex.unlock()

        await asyncio.create_task(stranger(), name="stranger")
        assert mutex.statistics().owner is not None
        mutex.unlock()
        assert mutex.statistics() == MutexStatistics(owner=None, waiting=0)

    bubble(main)


def test_locking_twice_raises_instead_of_hanging() -> None:
    """A task that holds the mutex and asks for it again gets a DeadlockError and still holds it."""

    async def main() -> None:
        mutex = Mutex()
        async with mutex:
            with pytest.raises(DeadlockError, match="wait for itself"):
                await mutex.lock()
            assert mutex.statistics().owner is not None

    bubble(main)


def test_cancelled_waiter_leaves_the_queue_and_others_get_their_turn() -> None:
    """A cancel in the middle of the queue takes out that waiter alone."""

    async def main() -> None:
        mutex = Mutex()
        await mutex.lock()
        tasks = [asyncio.create_task(mutex.lock()) for _ in range(3)]
        await wait_idle()
        assert mutex.statistics().waiting == 3
        tasks[1].cancel()
        await wait_idle()
        assert mutex.statistics().waiting == 2
        mutex.unlock()
        await tasks[0]
        assert not tasks[2].done()
        tasks[2].cancel()
        await wait_idle()

    bubble(main)


def test_cancel_at_the_wake_up_tick_passes_the_turn_on() -> None:
    """In 1,000 interleavings of unlock and cancel in one tick no turn is lost: who is not cancelled gets through."""

    async def main() -> None:
        mutex = Mutex()
        passed: list[str] = []

        async def enter(name: str) -> None:
            async with mutex:
                passed.append(name)
                await asyncio.sleep(0)

        await mutex.lock()
        first, second, third = (asyncio.create_task(enter(name), name=name) for name in ("first", "second", "third"))
        await wait_idle()
        mutex.unlock()
        first.cancel()
        second.cancel()
        await wait_idle()
        assert third.done()
        assert "third" in passed
        assert mutex.statistics() == MutexStatistics(owner=None, waiting=0)

    run_shuffled(main, seeds=SEEDS)


def test_cancel_before_the_unlock_in_one_tick_skips_the_cancelled() -> None:
    """A waiter cancelled just before the unlock is passed over, and leaves without a trace."""

    async def main() -> None:
        mutex = Mutex()
        await mutex.lock()
        first, second = asyncio.create_task(mutex.lock()), asyncio.create_task(mutex.lock())
        await wait_idle()
        first.cancel()
        mutex.unlock()
        await second
        assert first.cancelled()
        assert mutex.statistics().waiting == 0

    bubble(main)


def test_error_inside_unlocks() -> None:
    """An exception in the critical section frees the mutex and goes on."""

    async def main() -> None:
        mutex = Mutex()
        with pytest.raises(ValueError, match="inside"):
            async with mutex:
                raise ValueError("inside")
        assert mutex.try_lock() is True

    bubble(main)


def test_lock_outside_a_task_raises() -> None:
    """A callback, which has nothing to wait with, is refused."""

    async def main() -> None:
        mutex = Mutex()
        refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def callback() -> None:
            try:
                mutex.try_lock()
            except RuntimeError as error:
                refused.set_result(str(error))

        asyncio.get_running_loop().call_soon(callback)
        assert "for tasks" in await refused

    bubble(main)


def test_readers_share_and_writers_are_alone() -> None:
    """In 300 interleavings readers are inside together, and a writer never with anyone."""

    async def main() -> int:
        mutex = RWMutex()
        readers = writers = most = 0

        async def read() -> None:
            nonlocal readers, most
            async with mutex.read():
                readers += 1
                most = max(most, readers)
                assert writers == 0
                await asyncio.sleep(0)
                readers -= 1

        async def write() -> None:
            nonlocal writers
            async with mutex.write():
                writers += 1
                assert (readers, writers) == (0, 1)
                await asyncio.sleep(0)
                writers -= 1

        await asyncio.gather(*(fn() for fn in (read, read, write, read, write, read, read)))
        return most

    assert max(run_shuffled(main, seeds=range(300))) >= 2


def test_steady_readers_do_not_starve_a_writer() -> None:
    """A writer gets in although overlapping readers never leave the mutex free."""

    async def main() -> float:
        mutex = RWMutex()

        async def read_for_ever(offset: float) -> None:
            await asyncio.sleep(offset)
            while True:
                async with mutex.read():
                    await asyncio.sleep(1)

        readers = [asyncio.create_task(read_for_ever(offset)) for offset in (0.0, 0.5)]
        await asyncio.sleep(10)
        async with mutex.write():
            waited = asyncio.get_running_loop().time() - 10
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        return waited

    assert bubble(main) <= 1


def test_reader_behind_a_waiting_writer_waits_and_neighbours_enter_together() -> None:
    """Turns come in the order of asking: the writer first, then the readers behind it, both at once."""

    async def main() -> None:
        mutex = RWMutex()
        go_on = asyncio.Event()
        order: list[str] = []

        async def enter(name: str) -> None:
            async with mutex.write() if name == "writer" else mutex.read():
                order.append(name)
                await go_on.wait()

        tasks = []
        for name in ("reader 1", "writer", "reader 2", "reader 3"):
            tasks.append(asyncio.create_task(enter(name), name=name))
            await wait_idle()
        assert order == ["reader 1"]
        assert mutex.statistics() == RWMutexStatistics(readers=1, writer=None, waiting_readers=2, waiting_writers=1)
        go_on.set()
        await wait_idle()
        assert order == ["reader 1", "writer", "reader 2", "reader 3"]
        await asyncio.gather(*tasks)

    bubble(main)


def test_writer_shows_in_the_statistics() -> None:
    """The statistics name the task that writes."""

    async def main() -> None:
        mutex = RWMutex()

        async def write() -> RWMutexStatistics:
            async with mutex.write():
                return mutex.statistics()

        assert (await asyncio.create_task(write(), name="editor")).writer == "editor"

    bubble(main)


def test_writer_that_gives_up_lets_the_readers_behind_it_in() -> None:
    """When the only waiting writer is cancelled, readers that queued behind it join the reader inside."""

    async def main() -> None:
        mutex = RWMutex()

        async def enter_to_read() -> None:
            async with mutex.read():
                pass

        async def enter_to_write() -> None:
            async with mutex.write():
                pass

        async with mutex.read():
            writer = asyncio.create_task(enter_to_write())
            await wait_idle()
            reader = asyncio.create_task(enter_to_read())
            await wait_idle()
            assert not reader.done()
            writer.cancel()
            await wait_idle()
            assert reader.done()
        assert mutex.statistics() == RWMutexStatistics(0, None, 0, 0)

    bubble(main)


def test_reader_that_gives_up_is_no_longer_counted() -> None:
    """A cancel in the middle of the queue takes out that waiter alone, before any turn is given."""

    async def main() -> None:
        mutex = RWMutex()
        async with mutex.write():
            writer = asyncio.create_task(mutex.write().__aenter__())
            await wait_idle()
            reader = asyncio.create_task(mutex.read().__aenter__())
            await wait_idle()
            reader.cancel()
            await wait_idle()
            assert (mutex.statistics().waiting_readers, mutex.statistics().waiting_writers) == (0, 1)
        await writer

    bubble(main)


def test_reader_writer_cancel_at_the_wake_up_tick_passes_the_turn_on() -> None:
    """In 1,000 interleavings of leave and cancel in one tick the last waiter gets its turn, whatever kind it is."""

    async def main() -> None:
        for kinds in ("rrw", "wrr", "wwr", "wrw"):
            mutex = RWMutex()

            async def enter(kind: str, mutex: RWMutex = mutex) -> None:
                async with mutex.write() if kind == "w" else mutex.read():
                    await asyncio.sleep(0)

            async with mutex.write():
                first, second, third = (asyncio.create_task(enter(kind)) for kind in kinds)
                await wait_idle()
            first.cancel()
            second.cancel()
            await third
            await wait_idle()
            assert mutex.statistics() == RWMutexStatistics(0, None, 0, 0)

    run_shuffled(main, seeds=SEEDS)


@pytest.mark.parametrize(("first", "second"), [("r", "r"), ("r", "w"), ("w", "r"), ("w", "w")])
def test_entering_twice_raises_instead_of_hanging(first: str, second: str) -> None:
    """A holder that enters again, to read or to write, gets a DeadlockError and still holds what it had."""

    async def main() -> None:
        mutex = RWMutex()
        hold = {"r": mutex.read, "w": mutex.write}
        async with hold[first]():
            before = mutex.statistics()
            with pytest.raises(DeadlockError, match="wait for itself"):
                async with hold[second]():
                    pass
            assert mutex.statistics() == before

    bubble(main)


def test_leaving_by_a_stranger_raises() -> None:
    """A hold that another task leaves is refused and stays."""

    async def main() -> None:
        mutex = RWMutex()
        hold = mutex.read()
        async with hold:

            async def stranger() -> None:
                with pytest.raises(NotLockedError, match="does not hold"):
                    await hold.__aexit__(None, None, None)

            await asyncio.create_task(stranger())
            assert mutex.statistics().readers == 1

    bubble(main)
