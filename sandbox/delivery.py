"""A partner's file of coupons, loaded while members redeem: stopped in the middle, gone on with, and loaded again."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import asyncpg

from patterns import Context, ErrorGroup
from sandbox.coupon_file import CouponFile
from sandbox.journal import REJECTS, Journal
from sandbox.load import LOADED_WITH_REJECTS, STOPPED, Load
from sandbox.world import World

ROWS: Final = 20_000
_BAD_PERCENT: Final = 2.0
_DUPLICATE_PERCENT: Final = 3.0
# So many batches that a signal after a tenth of them comes long before the last.
_SLOWLY: Final = ("--batch-rows", "10", "--workers", "1")
_POLL_SECONDS: Final = 0.05
_TIMEOUT_SECONDS: Final = 10.0

_PROGRESS: Final = """
select coalesce(sum(inserted), 0)::bigint as inserted, coalesce(sum(skipped), 0)::bigint as skipped,
       coalesce(sum(rejected), 0)::bigint as rejected
from etl_files join etl_ranges using (file_id) where content_sha256 = $1
"""


class Delivery:
    """One file for a platform.

    Args:
        world: the platform.
        journal: where the file is written down; the file and its rejects are kept beside it.
        seed: decides what is in the file.
        say: where it is said.
        rows: how many it has.

    Attributes:
        differences: loads that ended in another way than they should, one sentence each.
    """

    def __init__(
        self, world: World, journal: Journal, seed: int, say: Callable[[str], None], *, rows: int = ROWS
    ) -> None:
        self._world = world
        self._journal = journal
        self._say = say
        self._file = CouponFile(rows, seed, _BAD_PERCENT, _DUPLICATE_PERCENT)
        self._content_sha256 = b""
        self._rejects = journal.directory / REJECTS
        self.differences: list[str] = []

    async def run(self, ctx: Context) -> None:
        """Load the file in three tries; when the context ends, the one in hand comes to its end, and no other begins.

        Cancellation kills the one in hand. However it ends, what is loaded is what the ledger says.
        """
        path, renamed = await asyncio.to_thread(self._write)
        connection = await asyncpg.connect(self._world.coupons_url, timeout=_TIMEOUT_SECONDS)
        try:
            self._journal.load(self._file)
            self._say(f"a file of {self._file.rows} coupons is loaded: some rows are bad, some codes come twice")
            async with self._world.open_load(path, self._rejects, *_SLOWLY) as load:
                await self._wait_begun(ctx, connection, load)
                status = await load.stop()
            self._expect(load, status, STOPPED)
            self._say(f"its load got a SIGTERM and ended with status {status}: {await self._progress(connection)}")
            for what, name in (("the same command again", path), ("the same file under another name", renamed)):
                if ctx.is_done or self.differences:
                    return
                async with self._world.open_load(name, self._rejects) as load:
                    status = await load.wait()
                self._expect(load, status, LOADED_WITH_REJECTS)
                self._say(f"{what} ended with status {status}: {await self._progress(connection)}")
                if not self.differences:
                    self._journal.loaded(self._file)
        finally:
            await connection.close()

    def _write(self) -> tuple[Path, Path]:
        """Write the file twice, for everybody to read."""
        content = self._file.content()
        self._content_sha256 = hashlib.sha256(content).digest()
        directory = self._journal.directory / "files"
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        paths = directory / "coupons.csv", directory / "coupons-again.csv"
        for path in paths:
            path.write_bytes(content)
            path.chmod(0o644)
        return paths

    async def _wait_begun(self, ctx: Context, connection: "asyncpg.Connection[asyncpg.Record]", load: Load) -> None:
        """Wait until a tenth is loaded, after the end of the context until anything is, or until the load ends."""
        async with ErrorGroup() as group:

            async def wait_rows() -> None:
                while True:
                    row = await connection.fetchrow(_PROGRESS, self._content_sha256)
                    # In its first moment a process has no handler yet, and would be ended by the signal.
                    if sum(row or ()) >= (1 if ctx.is_done else self._file.rows // 10):
                        break
                    await asyncio.sleep(_POLL_SECONDS)
                group.cancel()

            async def wait_end() -> None:
                await load.wait()
                group.cancel()

            await group.go(wait_rows)
            await group.go(wait_end)

    def _expect(self, load: Load, status: int, expected: int) -> None:
        if status != expected:
            self.differences.append(f"the load {load.name} ended with status {status} instead of {expected}")

    async def _progress(self, connection: "asyncpg.Connection[asyncpg.Record]") -> str:
        row = await connection.fetchrow(_PROGRESS, self._content_sha256)
        return ", ".join(f"{count} {what}" for what, count in (row or {}).items())
