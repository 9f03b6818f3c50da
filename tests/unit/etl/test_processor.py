"""The pool that loads a file's batches: what it counts, what ends it, and that nobody is left waiting."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from etl.block import Block, BlockCutter
from etl.copy_format import CopyRows
from etl.errors import (
    DuplicateRowError,
    FileChangedError,
    RangeTakenError,
    RowRejectedError,
    TooManyRejectsError,
    WorkerLostError,
)
from etl.header import COLUMNS, Header
from etl.ledger import BatchRange, DoneRange, LedgerFile
from etl.pools import BatchJob
from etl.processor import BatchOutcome, Processor, Target
from etl.progress import Counters
from etl.rejects import RejectFile
from etl.settings import Duplicates, EtlPostgresSettings, EtlSettings, LoadOptions, OnError, RetrySettings
from etl.store import BatchCounts
from patterns import Context, background
from runtime.errors import DependencyUnavailable
from sandbox.coupon_file import FileRow, coupon_rows
from tests.support.eventually import eventually
from tests.support.reject_file import rejects_in

BATCH = 10
AWAY = DependencyUnavailable("postgres", "it does not answer")
SETTINGS = EtlSettings(
    postgres=EtlPostgresSettings(database="d", user="u"),
    retry=RetrySettings(first_seconds=0.001, most_seconds=0.002, give_up_seconds=0.05),
)


class FakeStore:
    """Keeps what is loaded in memory; `fail` may raise instead, by the number of the call and the batch's place."""

    def __init__(self, fail: Callable[[int, BatchRange], None] = lambda _number, _where: None) -> None:
        self.fail = fail
        self.calls = 0
        self.in_hand = 0
        self.most_in_hand = 0
        self.loaded: list[BatchRange] = []
        self.rows = 0

    async def load_batch(self, file: LedgerFile, where: BatchRange, rows: CopyRows, *, rejected: int) -> BatchCounts:
        """Load a batch after some turns of the loop, in which others may come."""
        assert file.source == "etl:1"
        assert rows.encode().startswith(b"PGCOPY")
        assert rejected >= 0
        self.calls += 1
        self.in_hand += 1
        self.most_in_hand = max(self.most_in_hand, self.in_hand)
        try:
            await asyncio.sleep(0)
            self.fail(self.calls, where)
        finally:
            self.in_hand -= 1
        self.loaded.append(where)
        self.rows += len(rows)
        return BatchCounts(inserted=len(rows) - 1, skipped=1)


class GatedStore(FakeStore):
    """Loads nothing before the test opens its gate."""

    def __init__(self, fail: Callable[[int, BatchRange], None] = lambda _number, _where: None) -> None:
        super().__init__(fail)
        self.gate = asyncio.Event()
        self.waiting = 0

    async def load_batch(self, file: LedgerFile, where: BatchRange, rows: CopyRows, *, rejected: int) -> BatchCounts:
        """Load a batch when the gate is open."""
        self.waiting += 1
        await self.gate.wait()
        return await super().load_batch(file, where, rows, rejected=rejected)


class Scene:
    """A processor on a fake store, with a reject file on disk."""

    def __init__(self, path: Path, store: FakeStore, settings: EtlSettings, options: LoadOptions) -> None:
        self.path = path
        self.rejects = RejectFile(path, ())
        self.counters = Counters()
        target = Target(store, LedgerFile(1, False, Duplicates.FIRST, ()), self.rejects)
        self.processor = Processor(Header(COLUMNS), target, self.counters, settings, options)

    async def load(self, blocks: AsyncIterator[Block], ctx: Context | None = None) -> None:
        """Load blocks, and close the reject file."""
        with self.rejects:
            await self.processor.process(ctx or background(), blocks)


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Scene]:
    """Build scenes from a store and options of a load."""

    def make(store: FakeStore, settings: EtlSettings = SETTINGS, **options: Any) -> Scene:  # noqa: ANN401 - by their names
        return Scene(tmp_path / "rejects.jsonl", store, settings, LoadOptions(files=("a.csv",), **options))

    return make


def cut(rows: list[FileRow]) -> list[Block]:
    """Return the blocks of a file's rows, behind a header of one line."""
    cutter = BlockCutter(rows_max=BATCH, bytes_max=100_000, record_bytes_max=1_000, byte_start=80, first_line=2)
    return [*cutter.feed(b"".join(row.raw for row in rows)), *cutter.finish()]


async def each(blocks: list[Block]) -> AsyncIterator[Block]:
    """Yield blocks as a feeder does."""
    for block in blocks:
        await asyncio.sleep(0)
        yield block


def bad_lines(rows: list[FileRow]) -> list[int]:
    """Return the lines of the bad rows."""
    return [line for line, row in enumerate(rows, start=2) if row.code is None]


@pytest.mark.parametrize("workers", [1, 3])
async def test_every_row_becomes_something_and_no_more_batches_are_in_hand_than_workers(
    build: Callable[..., Scene], workers: int
) -> None:
    """In = inserted + skipped + rejected; rejects are on disk; the workers bound what is in hand."""
    rows, store = list(coupon_rows(400, seed=2, bad_percent=10)), FakeStore()
    scene = build(store, workers=workers)
    await scene.load(each(cut(rows)))
    assert scene.processor.processed_count == 400
    assert scene.processor.rejected_count == len(bad_lines(rows))
    assert scene.processor.skipped_count == len(store.loaded) == 40
    assert store.rows + scene.processor.rejected_count == 400
    assert [row.line for row in rejects_in(scene.path)] == bad_lines(rows)
    assert sum(scene.processor.reasons.values()) == len(bad_lines(rows))
    assert 1 <= store.most_in_hand <= workers
    assert scene.counters.bytes_done.load() == sum(len(row.raw) for row in rows)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("on_error", [OnError.FINISH, OnError.STOP])
async def test_bad_row_ends_the_load_with_its_line_though_the_feeder_has_more(
    build: Callable[..., Scene], seed: int, on_error: OnError
) -> None:
    """The first bad row that is met is the error, however many batches wait to be handed over."""
    rows = list(coupon_rows(2_000, seed=seed))
    rows[30 + seed] = FileRow(b"bad\n", None)
    scene = build(FakeStore(), workers=2, on_error=on_error)
    with pytest.raises(RowRejectedError, match=f"line {32 + seed}: fewer than"):
        await scene.load(each(cut(rows)))
    assert not scene.path.exists()


async def test_more_bad_rows_than_allowed_end_the_load_before_they_are_written(build: Callable[..., Scene]) -> None:
    """The batch that passes the limit leaves no reject behind, and is not loaded."""
    rows = [*coupon_rows(20, seed=1), *(FileRow(b"bad\n", None) for _ in range(5))]
    store = FakeStore()
    scene = build(store, workers=1, max_rejects=4)
    with pytest.raises(TooManyRejectsError):
        await scene.load(each(cut(rows)))
    assert not scene.path.exists()
    assert len(store.loaded) == 2


async def test_bad_rows_of_a_batch_that_others_loaded_in_part_are_not_counted_twice(
    build: Callable[..., Scene],
) -> None:
    """As many bad rows as may be are not too many, though half of them come again, alone, as the rest of a batch."""
    rows = [FileRow(b"bad\n", None) for _ in range(6)]

    def fail(number: int, where: BatchRange) -> None:
        if number == 1:
            raise RangeTakenError(where.byte_start, where.byte_end)

    scene = build(FakeStore(fail), workers=1, is_shared=True, max_rejects=6)
    with scene.rejects:
        await scene.processor.process(background(), each(cut(rows)))
        assert scene.processor.rejected_count == 0
        await scene.processor.process(background(), each(cut(rows[3:])))
    assert scene.processor.rejected_count == 3


async def test_bad_rows_of_earlier_tries_count_against_the_limit_and_not_as_rejected_now(tmp_path: Path) -> None:
    """One more than the ledger's five is too many, and is the first of this try."""
    earlier = DoneRange(80, 180, 2, 12, inserted=5, rejected=5)
    target = Target(
        FakeStore(), LedgerFile(1, False, Duplicates.FIRST, (earlier,)), RejectFile(tmp_path / "rejects.jsonl", ())
    )
    for most, too_many in ((5, True), (6, False)):
        counters, options = Counters(), LoadOptions(files=(), max_rejects=most)
        processor = Processor(Header(COLUMNS), target, counters, SETTINGS, options)
        with target.rejects, pytest.raises(TooManyRejectsError) if too_many else nullcontext():
            await processor.process(background(), each(cut([FileRow(b"bad\n", None)])))
        assert counters.rejected.load() == (0 if too_many else 1)


@pytest.mark.parametrize("is_dry_run", [False, True])
async def test_rows_of_a_batch_are_its_inserted_skipped_and_rejected_ones(
    build: Callable[..., Scene], *, is_dry_run: bool
) -> None:
    """In = inserted + skipped + rejected; a dry run skips the good ones, for it loads nothing."""
    rows = [*coupon_rows(7, seed=1), *(FileRow(b"bad\n", None) for _ in range(3))]
    scene, counters = build(FakeStore()), Counters()
    processor = scene.processor
    if is_dry_run:
        processor = Processor(Header(COLUMNS), None, counters, SETTINGS, LoadOptions(files=(), is_dry_run=True))
    with scene.rejects:
        outcome = await processor.process_batch(background(), BatchJob(1, cut(rows)[0]))
    assert outcome == (BatchOutcome(0, 7, 3) if is_dry_run else BatchOutcome(6, 1, 3))
    assert (processor.processed_count, processor.skipped_count) == (10, outcome.skipped)
    assert processor.rejected_count == 3


async def test_worker_shows_the_line_that_it_has_in_hand_and_none_without_a_batch(build: Callable[..., Scene]) -> None:
    """Each is there with its batch's first line, and gone with the batch, also with one that failed."""

    def fail(_number: int, _where: BatchRange) -> None:
        raise ValueError("the table does not take it")

    store = GatedStore(fail)
    scene = build(store, workers=2)
    load = asyncio.create_task(scene.load(each(cut(list(coupon_rows(20, seed=1))))))
    await eventually(lambda: store.waiting == 2)
    assert scene.processor.in_hand() == {"worker 1 of 2": "line 2", "worker 2 of 2": "line 12"}
    store.gate.set()
    await asyncio.wait_for(load, 5)
    assert scene.processor.in_hand() == {}


async def test_batch_that_fails_by_itself_is_counted_and_the_others_are_loaded(build: Callable[..., Scene]) -> None:
    """With `reject` a batch that the table does not take costs that batch; otherwise it ends the load."""

    def fail(_: int, where: BatchRange) -> None:
        if where.line_start == 22:
            raise ValueError("the table does not take it")

    rows, store = list(coupon_rows(100, seed=1)), FakeStore(fail)
    scene = build(store, workers=2)
    await scene.load(each(cut(rows)))
    assert scene.processor.failed_count == 1
    assert [str(error) for error in scene.processor.failures] == ["the table does not take it"]
    assert sorted(where.line_start for where in store.loaded) == [2, 12, *range(32, 102, 10)]
    for on_error in (OnError.FINISH, OnError.STOP):
        scene = build(FakeStore(fail), workers=2, on_error=on_error)
        with pytest.raises(ValueError, match="does not take it"):
            await scene.load(each(cut(rows)))


@pytest.mark.parametrize("error", [DuplicateRowError({3: "line 2"}), OSError(28, "No space left on device")])
async def test_what_would_meet_every_batch_ends_the_load_also_where_it_goes_on_past_failures(
    build: Callable[..., Scene], error: Exception
) -> None:
    """A code that came twice under `fail`, and a disk that is full, are not counted batch for batch."""

    def fail(_number: int, _where: BatchRange) -> None:
        raise error

    scene = build(FakeStore(fail), workers=2)
    with pytest.raises(type(error)):
        await scene.load(each(cut(list(coupon_rows(1_000, seed=1)))))


async def test_postgres_that_is_away_for_a_while_costs_time_and_nothing_else(build: Callable[..., Scene]) -> None:
    """Each batch is tried again until it is loaded; its rejects are written once."""

    def fail(number: int, _: BatchRange) -> None:
        if number % 3:
            raise AWAY

    rows = list(coupon_rows(100, seed=2, bad_percent=10))
    patient = SETTINGS.model_copy(
        update={"retry": RetrySettings(first_seconds=0.001, most_seconds=0.002, give_up_seconds=60)}
    )
    scene = build(FakeStore(fail), patient, workers=2)
    await scene.load(each(cut(rows)))
    assert scene.processor.processed_count == 100
    assert [row.line for row in rejects_in(scene.path)] == bad_lines(rows)


async def test_postgres_that_stays_away_ends_the_load_after_the_time_to_give_up(build: Callable[..., Scene]) -> None:
    """The last error is raised, after more than one try and not for ever."""

    def fail(_number: int, _where: BatchRange) -> None:
        raise AWAY

    store = FakeStore(fail)
    scene = build(store, workers=2)
    with pytest.raises(DependencyUnavailable, match="it does not answer"):
        await scene.load(each(cut(list(coupon_rows(1_000, seed=1)))))
    assert store.calls > 4


async def test_stop_while_postgres_is_away_does_not_wait_for_it(build: Callable[..., Scene]) -> None:
    """The end of the context ends the waiting, with the error that it waited for."""

    def fail(_number: int, _where: BatchRange) -> None:
        raise AWAY

    settings = SETTINGS.model_copy(
        update={"retry": RetrySettings(first_seconds=3_000, most_seconds=3_000, give_up_seconds=4_000)}
    )
    store = FakeStore(fail)
    scene = build(store, settings, workers=2)
    with background().with_cancel() as ctx:
        load = asyncio.create_task(scene.load(each(cut(list(coupon_rows(1_000, seed=1)))), ctx))
        await eventually(lambda: store.calls == 2)
        ctx.cancel()
        with pytest.raises(DependencyUnavailable):
            await asyncio.wait_for(load, 5)


async def test_stop_finishes_what_is_in_hand_and_begins_no_more(build: Callable[..., Scene]) -> None:
    """When the context ends, batches in hand are loaded and counted, and those that waited are not begun."""
    store = GatedStore()
    scene = build(store, workers=2)
    with background().with_cancel() as ctx:
        load = asyncio.create_task(scene.load(each(cut(list(coupon_rows(1_000, seed=1)))), ctx))
        await eventually(lambda: store.waiting == 2)
        ctx.cancel()
        store.gate.set()
        await asyncio.wait_for(load, 5)
    assert len(store.loaded) == 2
    assert scene.processor.processed_count == 2 * BATCH


async def test_file_that_changes_ends_the_load_with_what_the_feeder_met(build: Callable[..., Scene]) -> None:
    """An error of the feeder is the load's error; what was handed over before may be loaded."""

    async def changing() -> AsyncIterator[Block]:
        async for block in each(cut(list(coupon_rows(50, seed=1)))):
            yield block
        raise FileChangedError("the file changed while it was read")

    scene = build(FakeStore(), workers=2)
    with pytest.raises(FileChangedError):
        await scene.load(changing())


@pytest.mark.parametrize("on_error", list(OnError))
async def test_load_without_workers_ends_at_once_and_says_so(build: Callable[..., Scene], on_error: OnError) -> None:
    """When every worker is gone the feeder is not left in front of a full queue."""

    class Deadly(FakeStore):
        async def load_batch(
            self, file: LedgerFile, where: BatchRange, rows: CopyRows, *, rejected: int
        ) -> BatchCounts:
            worker = asyncio.current_task()
            assert worker is not None
            worker.cancel()
            return await super().load_batch(file, where, rows, rejected=rejected)

    scene = build(Deadly(), workers=2, on_error=on_error)
    with pytest.raises(WorkerLostError, match="a worker was lost with the batch of line"):
        await asyncio.wait_for(scene.load(each(cut(list(coupon_rows(1_000, seed=1))))), timeout=5)


@pytest.mark.parametrize("on_error", list(OnError))
async def test_load_whose_workers_are_gone_between_two_batches_is_not_taken_for_done(
    build: Callable[..., Scene], on_error: OnError
) -> None:
    """Workers that end while the file brings nothing are an error too, though no batch was lost with them."""
    blocks, resume = cut(list(coupon_rows(100, seed=1))), asyncio.Event()

    async def pausing() -> AsyncIterator[Block]:
        for number, block in enumerate(blocks):
            if number == 2:
                await resume.wait()
            yield block

    scene = build(FakeStore(), workers=2, on_error=on_error)
    load = asyncio.create_task(scene.load(pausing()))
    await eventually(lambda: scene.processor.processed_count == 2 * BATCH)
    for _ in range(50):
        await asyncio.sleep(0)
    workers = [task for task in asyncio.all_tasks() if task.get_name().startswith("worker ")]
    assert len(workers) == 2
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers, timeout=5)
    resume.set()
    with pytest.raises(WorkerLostError, match="a worker was lost between two batches"):
        await asyncio.wait_for(load, timeout=5)
