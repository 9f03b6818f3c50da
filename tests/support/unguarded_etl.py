"""The ETL without a guard, or with workers that end: `python -m tests.support.unguarded_etl --without claim load …`."""

import asyncio
import itertools
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from etl import app, hold, ledger, merge
from etl.__main__ import main
from etl.copy_format import CopyRows
from etl.coupon_batch import Reject
from etl.rejects import RejectFile
from etl.source import Source
from etl.store import EtlStore
from tests.support.unguarded import Removal, change, put, run_without

_HIT: Final = 5


def claim_what_is_taken() -> None:
    """Load a batch also where the ledger has it."""
    change(ledger, "CLAIM", "on conflict do nothing", _OVERWRITE)


_OVERWRITE: Final = """
on conflict (file_id, byte_start) do update set inserted = excluded.inserted, skipped = 0, conflicting = 0
"""


def let_anybody_hold() -> None:
    """Hold a file that another process holds."""
    change(hold, "_ALONE", "pg_try_advisory_xact_lock($1)", "$1::bigint is not null")


def write_rejects_at_the_end() -> None:
    """Let a batch count before its rejects are on disk."""
    write, leave = RejectFile.write, RejectFile.__exit__
    waiting: list[Reject] = []

    def wait(_: RejectFile, rejects: Sequence[Reject]) -> None:
        waiting.extend(rejects)

    def write_all(self: RejectFile, *error: object) -> None:
        if waiting:
            write(self, waiting)
        leave(self, *error)

    put(RejectFile, "write", wait)
    put(RejectFile, "__exit__", write_all)


def take_any_piece() -> None:
    """Load a piece of the file as it is by now."""
    put(Source, "_read_verified", lambda source, index: source._pieces.read(index))


def take_codes_in_descending_order() -> None:
    """Take the codes of a batch in an order that no other process has, wherever a row is inserted or locked."""
    encode = CopyRows.encode
    put(CopyRows, "encode", lambda rows: encode(CopyRows(rows.columns.sort_by([("code", "descending")]))))
    for rule, sql in merge._INSERT.items():
        old = "select * from best on conflict"
        assert old in sql
        merge._INSERT[rule] = sql.replace(old, "select * from best order by code desc on conflict")
    change(merge, "_LOCK", "order by code", "order by code desc")


class DyingError(BaseException):
    """Ends a worker as nothing that is caught does."""


def end_worker(*, by_cancel: bool) -> None:
    """Let a worker end in the middle of its so many-th batch."""
    load = EtlStore.load_batch
    number = itertools.count(1)

    async def load_or_end(self: EtlStore, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        if next(number) == _HIT:
            task = asyncio.current_task()
            assert task is not None
            if not by_cancel:
                raise DyingError("a worker ended")
            task.cancel()
        return await load(self, *args, **kwargs)

    put(EtlStore, "load_batch", load_or_end)


def leave_one_thread() -> None:
    """Let all that blocks wait for one thread."""
    run = app.Application.run

    async def run_on_one_thread(self: app.Application, *args: Any) -> None:  # noqa: ANN401 - passed on
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        await run(self, *args)

    put(app.Application, "run", run_on_one_thread)


GUARDS: Final[dict[str, Removal]] = {
    "claim": claim_what_is_taken,
    "lock": let_anybody_hold,
    "rejects-first": write_rejects_at_the_end,
    "checksum": take_any_piece,
    "code-order": take_codes_in_descending_order,
    "worker-by-cancel": lambda: end_worker(by_cancel=True),
    "worker-by-exception": lambda: end_worker(by_cancel=False),
    "threads": leave_one_thread,
}


if __name__ == "__main__":
    sys.exit(run_without(GUARDS, main))
