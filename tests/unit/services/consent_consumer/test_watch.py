"""The consumer's watch: what it shows of positions, oplog and dead letters, and what when it sees nothing."""

import asyncio
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import pytest
from bson import Timestamp
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from patterns import background, bubble, wait_idle
from runtime.errors import DependencyUnavailable
from runtime.mongo import MongoDatabase
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from services.consent_consumer.metrics import ConsentMetrics
from services.consent_consumer.store import MongoConsentStore, OplogSpan, Position, SavedPosition
from services.consent_consumer.watch import Watch, reached
from tests.support.consent_letter_contract import some_letter
from tests.support.consent_store_contract import position
from tests.support.fake_consent_store import FakeConsentStore, FakeDeadLetters

QUIET = {"_data": "82000000C8000000032B0229296E04"}  # as on a quiet stream: of (200, 3)


class World:
    """A watch over fakes, with the registry that it shows in."""

    def __init__(self) -> None:
        self.store = FakeConsentStore()
        self.letters = FakeDeadLetters()
        self.registry = CollectorRegistry()
        metrics = ConsentMetrics(self.registry)
        self.watch = Watch(self.store, self.letters, (CONSENT_MASTER, CONSENT_DETAIL), metrics, check_seconds=5)

    def stand(self, stream: str, at: Position) -> None:
        """Store a position."""
        self.store.positions[stream] = SavedPosition(at, 1, None)

    def shown(self) -> dict[str, float]:
        """Return what the watch shows, without the metrics that others count."""
        found = {
            sample.labels.get("stream", sample.name): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if metric.name in {"lp_consent_position_age_seconds", "lp_consent_oplog_window_seconds"}
        }
        return found | {"letters": self.registry.get_sample_value("lp_consent_dead_letters") or 0.0}


async def test_a_look_shows_how_far_each_position_is_behind_and_how_far_the_oplog_reaches() -> None:
    """Ages count from the oplog's end, that of a quiet stream from its token's own time; letters are counted."""
    world = World()
    world.store.oplog = OplogSpan(Timestamp(50, 1), Timestamp(210, 9))
    world.stand(CONSENT_MASTER, position(100))
    world.stand(CONSENT_DETAIL, Position(Timestamp(60, 1), QUIET))
    await world.letters.bury([some_letter()])
    await world.watch.look()

    assert world.shown() == {
        CONSENT_MASTER: 110,
        CONSENT_DETAIL: 10,
        "lp_consent_oplog_window_seconds": 160,
        "letters": 1,
    }


async def test_a_stream_that_never_began_has_no_age() -> None:
    """Neither where nothing is stored nor where a lease has only been stamped on it."""
    world = World()
    await world.store.take_position(CONSENT_DETAIL, 1)
    await world.watch.look()

    assert world.shown().keys() == {"lp_consent_oplog_window_seconds", "letters"}


def test_a_watch_that_sees_nothing_shows_nothing_and_says_so_once() -> None:
    """While the database is away no age is shown and the rest is no number; the next good look shows all again."""

    async def run() -> None:
        world = World()
        world.stand(CONSENT_MASTER, position(0, 1))
        seen = world.store.oplog_span
        with background().with_cancel() as ctx:
            running = asyncio.create_task(world.watch.run(ctx))
            await wait_idle()
            assert world.shown()[CONSENT_MASTER] == 0
            world.store.oplog_span = _away  # type: ignore[method-assign]
            await asyncio.sleep(11)
            shown = world.shown()
            assert CONSENT_MASTER not in shown
            assert all(math.isnan(value) for value in shown.values())
            assert len(shown) == 2
            world.store.oplog_span = seen  # type: ignore[method-assign]
            await asyncio.sleep(5)
            assert world.shown()[CONSENT_MASTER] == 0
        await running

    with capture_logs() as lines:
        bubble(run)
    assert [line["event"] for line in lines] == ["The oplog and the dead letters are not seen"]


class Server:
    """A database whose server says this of itself."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        self.client = self.admin = self
        self._status = status

    def call(self) -> AbstractContextManager[None]:
        """Let it answer."""
        return nullcontext()

    async def command(self, _: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer."""
        return self._status


@pytest.mark.parametrize(
    "status",
    [{"ok": 1}, {"oplog": {"earliestOptime": Timestamp(0, 0), "latestOptime": Timestamp(200, 1)}}],
    ids=["no replica set", "a lock was taken"],
)
async def test_a_server_that_does_not_say_how_far_its_oplog_reaches_is_no_error(status: Mapping[str, Any]) -> None:
    """The store takes it for no answer, so that the watch is blind for a moment, and nothing else."""
    store = MongoConsentStore(cast("MongoDatabase", Server(status)))
    with pytest.raises(DependencyUnavailable, match="how far its oplog reaches"):
        await store.oplog_span()


async def _away() -> OplogSpan:
    raise DependencyUnavailable("mongo", "no primary")


@pytest.mark.parametrize(
    "token",
    [
        None,
        {},
        {"_data": ""},
        {"_data": "82"},
        {"_data": "82000000C80000000"},
        {"_data": "81000000C8000000032B"},
        {"_data": "8200zz00C8000000032B"},
        {"_data": "82ÄÖ0000C8000000032B"},
        {"_data": b"\x82\x00\x00\x00\xc8\x00\x00\x00\x03"},
    ],
)
def test_a_token_of_another_form_counts_as_its_last_event(token: Mapping[str, Any] | None) -> None:
    """What begins with no time gives the time of the event, and never an error."""
    assert reached(Position(Timestamp(60, 1), token)) == Timestamp(60, 1)


def test_a_token_tells_its_own_time() -> None:
    """It is the one that a quiet stream has come to."""
    assert reached(Position(Timestamp(60, 1), QUIET)) == Timestamp(200, 3)
