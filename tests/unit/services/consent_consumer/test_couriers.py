"""Several couriers of one stream: side by side for different documents, one after the other for the same."""

import asyncio
from collections.abc import Sequence

import pytest
from bson import Timestamp
from prometheus_client import CollectorRegistry

from patterns import background, bubble, wait_idle
from runtime.errors import DependencyUnavailable
from services.consent_consumer.change_stream import CONSENT_MASTER, Change
from services.consent_consumer.courier import Courier, Couriers
from services.consent_consumer.errors import LeaseLostError, SalesforceUnavailable
from services.consent_consumer.lease import Lease
from services.consent_consumer.metrics import ConsentMetrics, StreamMetrics
from services.consent_consumer.outcome import STORED, Outcome
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import Position
from tests.support.fake_consent_store import FakeDeadLetters

DOCUMENTS = 41


class Office:
    """Two couriers, whose calls take a second each and are written down."""

    def __init__(self, *, changes_max: int = 1_000) -> None:
        self.ledger = StreamLedger(1_000)
        self.lease = Lease(1, asyncio.get_running_loop().time() + 3_600)
        self.under_way: list[set[object]] = []
        self.most_under_way = 0
        self.carried: dict[object, list[int]] = {}
        self.error: Exception | None = None
        metrics = StreamMetrics(ConsentMetrics(CollectorRegistry()), CONSENT_MASTER)
        couriers = [
            Courier(
                self._send,
                self.ledger,
                FakeDeadLetters(),
                self.lease,
                metrics,
                retry=RetrySettings(first_seconds=1, most_seconds=8),
                events_max=200,
            )
            for _ in range(2)
        ]
        self.couriers = Couriers(couriers, changes_max)

    def change(self, document_id: object) -> Change:
        """Return the next change of the stream, of this document."""
        time = Timestamp(1_000, self.ledger.statistics().registered + 1)
        number = self.ledger.register_nowait(Position(time, {"_data": str(time.inc)}))
        event = {"_id": {"_data": str(time.inc)}, "clusterTime": time, "documentKey": {"_id": document_id}}
        return Change(number, event)

    async def _send(self, changes: Sequence[Change]) -> list[Outcome]:
        documents = {change.document_id for change in changes}
        assert not any(documents & others for others in self.under_way), "one document in two calls at once"
        self.under_way.append(documents)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        try:
            await asyncio.sleep(1)
        finally:
            self.under_way.remove(documents)
        if self.error is not None:
            raise self.error
        for change in changes:
            self.carried.setdefault(change.document_id, []).append(change.number)
        return [STORED] * len(changes)


def test_calls_go_side_by_side_and_changes_of_one_document_in_their_order() -> None:
    """Two calls are under way at once, never with one document in both, and each document's changes rise."""

    async def scene() -> None:
        office = Office()
        with background().with_cancel() as ctx:
            carrying = asyncio.create_task(office.couriers.carry(ctx))
            for _ in range(5):
                for number in range(DOCUMENTS):
                    await office.couriers.send(office.change(number))
                await asyncio.sleep(0.3)
            await office.ledger.wait_settled()
            ctx.cancel()
            await carrying
        office.lease.close()
        assert office.most_under_way == 2
        assert set(office.carried) == set(range(DOCUMENTS))
        assert all(numbers == sorted(numbers) for numbers in office.carried.values())

    bubble(scene)


def test_ids_that_mongodb_holds_equal_go_to_one_courier() -> None:
    """A 7 and a 7.0 are one document, and never in two calls at once."""

    async def scene() -> None:
        office = Office()
        with background().with_cancel() as ctx:
            carrying = asyncio.create_task(office.couriers.carry(ctx))
            for number in range(DOCUMENTS):
                await office.couriers.send(office.change(number))
            await wait_idle()
            for number in range(DOCUMENTS):
                await office.couriers.send(office.change(float(number)))
            await office.ledger.wait_settled()
            ctx.cancel()
            await carrying
        office.lease.close()
        assert [len(numbers) for numbers in office.carried.values()] == [2] * DOCUMENTS

    bubble(scene)


def test_the_end_of_the_context_lets_both_finish_their_calls() -> None:
    """What is in hand when the context ends is settled before the couriers end, without an error."""

    async def scene() -> None:
        office = Office()
        with background().with_cancel() as ctx:
            carrying = asyncio.create_task(office.couriers.carry(ctx))
            for number in range(DOCUMENTS):
                await office.couriers.send(office.change(number))
            await wait_idle()
            assert len(office.under_way) == 2
            ctx.cancel()
            await carrying
        office.lease.close()
        assert office.ledger.statistics().unsettled == 0

    bubble(scene)


def test_the_first_that_fails_takes_the_other_with_it() -> None:
    """A lost lease ends all of them, and what was not settled stays so."""

    async def scene() -> None:
        office = Office()
        carrying = asyncio.create_task(office.couriers.carry(background()))
        for number in range(DOCUMENTS):
            await office.couriers.send(office.change(number))
        await wait_idle()
        office.error = LeaseLostError("another instance")
        with pytest.raises(LeaseLostError):
            await carrying
        office.lease.close()
        assert office.under_way == []
        assert office.ledger.statistics().unsettled == DOCUMENTS

    bubble(scene)


def test_one_that_has_no_answer_is_told_of() -> None:
    """Readiness fails while any of them waits for Salesforce."""

    async def scene() -> None:
        office = Office()
        office.error = SalesforceUnavailable("salesforce", "away", retry_after_seconds=20)
        with background().with_cancel() as ctx:
            carrying = asyncio.create_task(office.couriers.carry(ctx))
            office.couriers.check()
            await office.couriers.send(office.change(1))
            await asyncio.sleep(2)
            with pytest.raises(DependencyUnavailable):
                office.couriers.check()
            ctx.cancel()
            await carrying
        office.lease.close()

    bubble(scene)


def test_a_courier_without_room_holds_up_whoever_sends() -> None:
    """No more changes wait for one courier than it may have."""

    async def scene() -> None:
        office = Office(changes_max=2)
        for _ in range(2):
            await office.couriers.send(office.change("a"))
        sending = asyncio.create_task(office.couriers.send(office.change("a")))
        await wait_idle()
        assert not sending.done()
        sending.cancel()
        await asyncio.wait([sending])
        office.lease.close()

    bubble(scene)
