"""WorkerPool: for any pool, jobs, failures and cancels."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.errors import ChannelClosedError
from patterns.worker_pool import JobResult, WorkerPool
from tests.support.seeds import thousand_seeds
from tests.support.shuffling_loop import ShufflingLoop, run_shuffled


async def read_all(pool: WorkerPool[int, int]) -> list[JobResult[int, int]]:
    """Read results until there are no more."""
    return [result async for result in pool]


def workers_of(pool: WorkerPool[int, int]) -> list[asyncio.Task[None]]:
    """Return the pool's tasks, for a test that attacks them."""
    return list(pool._workers)


@dataclass(frozen=True)
class Plan:
    """One run of a pool: its shape, how each job ends and after how many steps, and when workers are cancelled."""

    workers: int
    capacity: int
    jobs: list[tuple[str, int]]
    worker_cancels: list[int]
    seed: int


PLANS = st.builds(
    Plan,
    workers=st.integers(1, 4),
    capacity=st.integers(0, 4),
    jobs=st.lists(st.tuples(st.sampled_from(["value", "error", "cancel", "hidden"]), st.integers(0, 4)), max_size=15),
    worker_cancels=st.lists(st.integers(0, 12), max_size=4),
    seed=st.integers(0, 2**16),
)


@settings(max_examples=100, deadline=None)
@given(PLANS)
def test_every_accepted_job_has_one_result_whatever_fails_or_is_cancelled(plan: Plan) -> None:
    """For any pool, jobs, failures, cancels and interleaving: accepted jobs = results, at most n at once, no hang."""

    async def main() -> None:
        running = 0

        async def work(job: int) -> int:
            nonlocal running
            running += 1
            assert running <= plan.workers
            how, steps = plan.jobs[job]
            try:
                for _ in range(steps):
                    await asyncio.sleep(0)
                if how == "error":
                    raise ValueError(job)
                if how == "cancel":
                    raise asyncio.CancelledError
                if how == "hidden":
                    await asyncio.wait_for(asyncio.sleep(1), 10)
                return job
            finally:
                running -= 1

        pool = WorkerPool(work, plan.workers, plan.capacity)
        accepted: list[int] = []

        async def feed() -> None:
            for job in range(len(plan.jobs)):
                try:
                    await pool.submit(job)
                except ChannelClosedError:
                    break
                accepted.append(job)
            pool.close()

        async def attack() -> None:
            for pause in plan.worker_cancels:
                for _ in range(pause):
                    await asyncio.sleep(0)
                if victims := workers_of(pool):
                    victims[0].cancel()

        feeder, attacker = asyncio.create_task(feed()), asyncio.create_task(attack())
        results = await read_all(pool)
        await asyncio.gather(feeder, attacker)
        assert Counter(result.job for result in results) == Counter(accepted)
        for result in results:
            how, _ = plan.jobs[result.job]
            assert isinstance(result.error, asyncio.CancelledError) or (how == "error") == (result.error is not None)
        statistics = pool.statistics()
        assert (statistics.workers, statistics.queued, statistics.running) == (0, 0, 0)
        assert statistics.succeeded + statistics.failed == len(accepted)

    run_shuffled(main, seeds=[plan.seed])


@thousand_seeds
def test_job_whose_submit_worker_or_reader_is_cancelled_is_never_lost_and_never_done_twice(seeds: range) -> None:
    """Submits, workers and readers are cancelled at random: accepted jobs have one result each, with 1,000 seeds."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ShufflingLoop)
        begun: Counter[int] = Counter()
        accepted: set[int] = set()
        results: list[JobResult[int, int]] = []

        async def work(job: int) -> int:
            begun[job] += 1
            for _ in range(job % 3):
                await asyncio.sleep(0)
            return job

        async def submit(job: int) -> None:
            await pool.submit(job)
            accepted.add(job)

        async def read() -> None:
            async for result in pool:
                results.append(result)  # noqa: PERF401  # at once, even if cancelled later

        pool = WorkerPool(work, 3, 1)
        tasks = [asyncio.create_task(read())]
        for job in range(12):
            tasks.append(asyncio.create_task(submit(job)))
            await asyncio.sleep(0)
            loop.random.choice([*tasks, *workers_of(pool)[1:]]).cancel()
        tasks.append(asyncio.create_task(read()))
        await asyncio.gather(*tasks[1:-1], return_exceptions=True)
        pool.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        jobs = [result.job for result in results]
        assert accepted <= set(jobs) <= set(range(12))
        assert max(Counter(jobs).values()) == max(begun.values()) == 1
        assert {result.job for result in results if result.error is None} <= begun.keys()

    run_shuffled(main, seeds=seeds)
