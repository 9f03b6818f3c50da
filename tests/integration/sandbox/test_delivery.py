"""A file that is loaded into a platform: stopped, gone on with, loaded again; and what is said when a load fails."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from patterns import background
from sandbox.delivery import Delivery
from sandbox.holdings import read_holdings
from sandbox.instance import COUPON_FLOW
from sandbox.journal import REJECTS, Journal, read_journal
from sandbox.load_books import LoadBooks
from sandbox.seed import make_seed
from sandbox.servers import keeper
from sandbox.system import System, open_system
from tests.support.eventually import eventually

ROWS = 4_000

pytestmark = pytest.mark.timeout(120)


def _loads() -> list[int]:
    """Return our processes that run a load."""
    found = []
    for pid in keeper.descendants(os.getpid()):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"\0-m\0etl\0load\0" in command:
                found.append(pid)
    return found


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    """A platform of which no service runs: a load needs the database alone."""
    async with open_system(tmp_path / "system", services=COUPON_FLOW) as opened:
        yield opened


class Office:
    """One delivery with its journal, and what was said of it."""

    def __init__(self, system: System, directory: Path) -> None:
        self.system = system
        self.said: list[str] = []
        self.journal = Journal(directory)
        self.journal.seeded(make_seed(1, 1))
        self.delivery = Delivery(system, self.journal, 3, self.said.append, rows=ROWS)

    async def books(self) -> tuple[LoadBooks, bool]:
        """Return the books of what is there, and whether the load was told to have come to its end."""
        directory = self.journal.directory
        (file,), (is_told,) = zip(*read_journal(directory).files.items(), strict=True)
        system = self.system
        holdings = await read_holdings(system.rewards_url, system.coupons_url, [file], directory / REJECTS)
        return LoadBooks({file: is_told}, holdings.loads), is_told


@pytest.fixture
def office(system: System, tmp_path: Path) -> Iterator[Office]:
    """A delivery that has not begun."""
    opened = Office(system, tmp_path / "journal")
    yield opened
    opened.journal.close()


async def test_delivery_is_stopped_in_the_middle_and_comes_to_its_end(office: Office) -> None:
    """Its load is stopped with more to do, goes on, changes nothing the third time, and leaves the books balanced."""
    await office.delivery.run(background())
    assert office.delivery.differences == []
    books, is_told = await office.books()
    assert is_told
    assert list(books.differences()) == []
    begun, stopped, done, again = office.said
    assert "a file of 4000 coupons" in begun
    assert "status 75" in stopped
    assert "status 3" in done
    assert done.partition(":")[2] == again.partition(":")[2] != stopped.partition(":")[2]


async def test_delivery_told_to_end_stops_its_load_and_begins_no_other(office: Office) -> None:
    """What the stopped load left is as its ledger says; that all of it is loaded nobody was told."""
    with background().with_cancel() as ctx:
        ctx.cancel()
        await office.delivery.run(ctx)
    assert len(office.said) == 2
    books, is_told = await office.books()
    assert not is_told
    assert list(books.differences()) == []


async def test_load_that_cannot_begin_is_a_difference(office: Office) -> None:
    """A load that ends by itself, with another status, is told as a difference and is not tried again."""
    (office.system.directory / "secrets" / "etl-password").unlink()
    await office.delivery.run(background())
    (difference,) = office.delivery.differences
    assert "etl-1 ended with status" in difference
    _, is_told = await office.books()
    assert not is_told


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_delivery_cancelled_leaves_no_load_behind(office: Office) -> None:
    """The load in hand is killed: it comes to no end of its own, and none of our processes runs one."""
    delivering = asyncio.create_task(office.delivery.run(background()))
    log = office.system.directory / "etl-1.log"
    await eventually(lambda: log.exists() and b"Admin server listening" in log.read_bytes(), seconds=60)
    assert _loads()
    delivering.cancel()
    await asyncio.wait({delivering})
    assert delivering.cancelled()
    assert b"Process stopped" not in log.read_bytes()
    assert _loads() == []
