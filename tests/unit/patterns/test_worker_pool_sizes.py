"""WorkerPool: how many jobs it queues and how many results it keeps."""

import asyncio

from patterns.bubble import bubble, wait_idle
from patterns.worker_pool import WorkerPool


async def echo_after(number: int) -> int:
    """Take `number` seconds."""
    await asyncio.sleep(number)
    return number


def test_queue_holds_twice_as_many_jobs_as_workers_if_nothing_is_said() -> None:
    """Three workers take three jobs, six are queued, and the tenth submit waits."""

    async def main() -> float:
        async with WorkerPool(echo_after, 3) as pool:
            for _ in range(9):
                await pool.submit(5)
                await wait_idle()
            assert pool.statistics().queued == 6
            await pool.submit(5)
            return asyncio.get_running_loop().time()

    assert bubble(main) == 5


def test_pool_without_workers_has_room_for_all_results_that_nobody_read() -> None:
    """As many results as there may be are unread, the queue is full, and then the last worker goes: none is lost."""

    async def main() -> None:
        pool = WorkerPool(echo_after, 1, capacity=5)
        feeder = asyncio.create_task(feed(pool))
        await asyncio.sleep(1)
        assert (pool.statistics().unread, pool.statistics().queued) == (6, 5)
        for worker in list(pool._workers):
            worker.cancel()
        await wait_idle()
        assert (pool.statistics().unread, pool.statistics().queued) == (11, 0)
        await feeder
        results = [result async for result in pool]
        assert [result.error is None for result in results] == [True] * 6 + [False] * 5

    async def feed(pool: WorkerPool[int, int]) -> None:
        for _ in range(11):
            await pool.submit(0)

    bubble(main)
