"""What becomes of changes between the stream and Salesforce, on a clock of its own."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence

import pytest
from bson import Timestamp
from prometheus_client import CollectorRegistry

from patterns import Channel, Context, background, bubble, wait_idle
from services.consent_consumer.change_stream import CONSENT_MASTER, Change
from services.consent_consumer.courier import Courier
from services.consent_consumer.dead_letters import LetterFilter
from services.consent_consumer.errors import LeaseLostError, SalesforceUnavailable
from services.consent_consumer.lease import Lease
from services.consent_consumer.metrics import ConsentMetrics, StreamMetrics
from services.consent_consumer.outcome import STORED, Outcome, Verdict
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import Position
from tests.support.fake_consent_store import FakeDeadLetters

LOCKED = Outcome(Verdict.LATER, "UNABLE_TO_LOCK_ROW")
REFUSED = Outcome(Verdict.REFUSED, "STRING_TOO_LONG", "MemberId__c")
ODD = Outcome(Verdict.UNKNOWN, "ODD")
OLDER = Outcome(Verdict.OLDER, "FIELD_CUSTOM_VALIDATION_EXCEPTION")

Call = list[tuple[object, int]]


class Desk:
    """A courier with a Salesforce that answers as it is told, and a clerk who hands changes over."""

    def __init__(self, *, events_max: int = 200, later_tries: int = 3, unknown_tries: int = 2) -> None:
        self.ledger = StreamLedger(1_000)
        self.letters = FakeDeadLetters()
        self.lease = Lease(1, asyncio.get_running_loop().time() + 3_600)
        self.changes: Channel[Change] = Channel(1_000)
        self.calls: list[Call] = []
        self.answers: list[Callable[[Sequence[Change]], list[Outcome]]] = []
        self.always: dict[object, Outcome] = {}
        self.call_seconds = 0.0
        self.courier = Courier(
            self._send,
            self.ledger,
            self.letters,
            self.lease,
            StreamMetrics(ConsentMetrics(CollectorRegistry()), CONSENT_MASTER),
            retry=RetrySettings(first_seconds=1, most_seconds=8, later_tries=later_tries, unknown_tries=unknown_tries),
            events_max=events_max,
        )

    def hand_over(self, *document_ids: object, is_whole: bool = True) -> None:
        """Let the stream give a change of each of these documents."""
        for document_id in document_ids:
            time = Timestamp(1_000, self.ledger.statistics().registered + 1)
            number = self.ledger.register_nowait(Position(time, {"_data": str(time.inc)}))
            event = {"_id": {"_data": str(time.inc)}, "clusterTime": time, "documentKey": {"_id": document_id}}
            self.changes.send_nowait(Change(number, event, is_whole))

    @property
    def unsettled(self) -> int:
        """How many changes are not settled."""
        return self.ledger.statistics().unsettled

    async def dead(self) -> list[tuple[str, int]]:
        """Return the class of error and the tries of each dead letter."""
        return [(each.error_class, each.tries) for each in await self.letters.list(LetterFilter(), None, 100)]

    async def _send(self, changes: Sequence[Change]) -> list[Outcome]:
        self.calls.append([(change.document_id, change.number) for change in changes])
        await asyncio.sleep(self.call_seconds)
        if self.answers:
            return self.answers.pop(0)(changes)
        return [self.always.get(change.document_id, STORED) for change in changes]


def at_desk(test: Callable[[Desk, Context], Coroutine[object, object, None]], **settings: int) -> None:
    """Run a test with a courier at work, on a clock of its own."""

    async def run() -> None:
        desk = Desk(**settings)
        with background().with_cancel() as ctx:
            carrying = asyncio.create_task(desk.courier.carry(ctx, desk.changes))
            await test(desk, ctx)
            ctx.cancel()
            await carrying
        desk.lease.close()

    bubble(run)


def unavailable(_: Sequence[Change]) -> list[Outcome]:
    """Answer nothing."""
    raise SalesforceUnavailable("salesforce", "away", retry_after_seconds=20)


def test_one_change_goes_at_once_and_more_go_together() -> None:
    """A call takes what has come by then, at most so many; nobody waits for a batch to become full."""

    async def test(desk: Desk, _: Context) -> None:
        desk.call_seconds = 1
        desk.hand_over("a")
        await wait_idle()
        desk.hand_over("b", "c", "d")
        await asyncio.sleep(4)
        assert [[key for key, _ in call] for call in desk.calls] == [["a"], ["b", "c"], ["d"]]
        assert desk.unsettled == 0

    at_desk(test, events_max=2)


def test_of_one_document_only_the_newest_change_is_sent_and_all_are_settled() -> None:
    """Several changes of a document in one call are one record."""

    async def test(desk: Desk, _: Context) -> None:
        desk.hand_over("a", "b", "a", "a")
        await wait_idle()
        assert desk.calls == [[("a", 3), ("b", 1)]]
        assert desk.unsettled == 0

    at_desk(test)


@pytest.mark.parametrize("outcome", [STORED, OLDER])
def test_what_is_stored_or_superseded_is_settled(outcome: Outcome) -> None:
    """A record whose newer version is there needs nothing more."""

    async def test(desk: Desk, _: Context) -> None:
        desk.always["a"] = outcome
        desk.hand_over("a")
        await wait_idle()
        assert (desk.unsettled, await desk.dead()) == (0, [])

    at_desk(test)


def test_a_locked_row_waits_and_holds_nobody_up() -> None:
    """What comes meanwhile goes on; the locked one is tried again after a while, and then it is settled."""

    async def test(desk: Desk, _: Context) -> None:
        desk.always["a"] = LOCKED
        desk.hand_over("a", "b")
        await wait_idle()
        assert desk.unsettled == 1
        desk.hand_over("c")
        await wait_idle()
        assert desk.unsettled == 1
        assert desk.ledger.savable() is None  # what was settled behind it cannot be saved yet
        del desk.always["a"]
        await asyncio.sleep(1)
        await wait_idle()
        assert desk.unsettled == 0
        assert [[key for key, _ in call] for call in desk.calls] == [["a", "b"], ["c"], ["a"]]

    at_desk(test)


def test_calls_of_what_is_tried_again_are_no_larger_than_others() -> None:
    """What became due during a long call goes in as many calls as it takes."""

    async def test(desk: Desk, _: Context) -> None:
        desk.always = dict.fromkeys("abcde", LOCKED)
        desk.hand_over(*"abcde")
        await wait_idle()
        desk.always, desk.call_seconds = {}, 60
        desk.hand_over("z")
        await asyncio.sleep(600)
        calls = ["".join(str(key) for key, _ in call) for call in desk.calls]
        assert calls == ["ab", "cd", "e", "z", "ab", "cd", "e"]
        assert desk.unsettled == 0

    at_desk(test, events_max=2)


def test_a_newer_change_takes_the_place_of_one_that_waits() -> None:
    """The older is never sent again, and both are settled by the newer."""

    async def test(desk: Desk, _: Context) -> None:
        desk.always["a"] = LOCKED
        desk.hand_over("a")
        await wait_idle()
        del desk.always["a"]
        desk.hand_over("a")
        await asyncio.sleep(30)
        assert desk.calls == [[("a", 0)], [("a", 1)]]
        assert desk.unsettled == 0

    at_desk(test)


@pytest.mark.parametrize(
    ("outcome", "tries"), [(LOCKED, 3), (ODD, 2), (REFUSED, 1)], ids=lambda value: str(getattr(value, "code", value))
)
def test_what_is_refused_too_often_is_a_dead_letter(outcome: Outcome, tries: int) -> None:
    """Each class has its tries; then the letter is there before the change is settled."""

    async def test(desk: Desk, _: Context) -> None:
        desk.always["a"] = outcome
        desk.hand_over("a")
        await asyncio.sleep(60)
        assert len(desk.calls) == tries
        assert await desk.dead() == [(outcome.code, tries)]
        assert desk.unsettled == 0

    at_desk(test)


def test_the_letter_of_an_event_without_its_document_says_so() -> None:
    """Whoever replays it can tell it from a document that is gone."""

    async def test(desk: Desk, _: Context) -> None:
        desk.always = {"a": REFUSED, "b": REFUSED}
        desk.hand_over("a", is_whole=False)
        desk.hand_over("b")
        await wait_idle()
        letters = await desk.letters.list(LetterFilter(), None, 100)
        assert [each.is_whole for each in letters] == [False, True]

    at_desk(test)


def test_a_call_that_comes_to_nothing_is_made_again_and_counts_against_nobody() -> None:
    """It waits as long as Salesforce wants, says so to readiness, and loses nothing."""

    async def test(desk: Desk, _: Context) -> None:
        desk.answers = [unavailable] * 5
        desk.hand_over("a", "b")
        await asyncio.sleep(19)
        assert len(desk.calls) == 1
        with pytest.raises(SalesforceUnavailable.__bases__[0], match="away"):
            desk.courier.check()
        await asyncio.sleep(100)
        assert len(desk.calls) == 6
        assert (desk.unsettled, await desk.dead()) == (0, [])
        desk.courier.check()

    at_desk(test)


def test_a_stop_finishes_the_call_in_hand_and_leaves_the_rest() -> None:
    """What the call settled is settled; what was only read is left to the next start."""

    async def test(desk: Desk, ctx: Context) -> None:
        desk.call_seconds = 5
        desk.hand_over("a")
        await wait_idle()
        desk.hand_over("b")
        ctx.cancel()
        await asyncio.sleep(60)
        assert desk.calls == [[("a", 0)]]
        assert desk.unsettled == 1

    at_desk(test)


def test_nothing_is_sent_once_the_lease_is_lost() -> None:
    """Another instance may be at work by then."""

    async def run() -> None:
        desk = Desk()
        with background().with_cancel() as ctx:
            carrying = asyncio.create_task(desk.courier.carry(ctx, desk.changes))
            await wait_idle()
            desk.lease.lose(LeaseLostError("taken"))
            desk.hand_over("a")
            with pytest.raises(LeaseLostError):
                await carrying
        assert desk.calls == []
        desk.lease.close()

    bubble(run)
