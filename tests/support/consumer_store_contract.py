"""What every store of the consumer must do: one test body, run on the fake and on the real one.

A test class inherits `ConsumerStoreContract` and has a fixture `kept`: a store whose partitions 0 and 1 begin at offset
10, and ways to look into it.
"""

from collections.abc import Sequence
from typing import Protocol

import pytest

from loyalty.event import CouponEvent, encode
from services.coupon_consumer.decode import Poison
from services.coupon_consumer.errors import OwnershipLostError
from services.coupon_consumer.event_row import decode_row
from services.coupon_consumer.store import Progress, Saved, Store, Work
from tests.support.coupon_events import cancelled, some_event
from tests.support.fake_kafka_client import record

TOPIC_ID = "id-1"


class Kept(Protocol):
    """A store and what is in it."""

    store: Store

    async def coupons(self) -> dict[str, tuple[int, str]]:
        """Return version and status of each coupon, by code."""

    async def letters(self) -> int:
        """Return how many dead letters there are."""


def some_work(
    events: Sequence[CouponEvent], first: int, end: int, *, partition: int = 0, poison: Sequence[Poison] = ()
) -> Work:
    """Return work that takes a partition from an offset to another."""
    contents = [(encode(event), event.coupon.code.encode()) for event in events]
    rows = [decode_row(*content) for content in contents]
    records = [record(partition, first + index, *content) for index, content in enumerate(contents)]
    return Work([Progress(TOPIC_ID, partition, first, end)], rows, records, poison)


class ConsumerStoreContract:
    """The rules that reading relies on."""

    async def test_work_moves_its_partition_and_no_other(self, kept: Kept) -> None:
        """Rows and place are stored together."""
        event = some_event()
        assert await kept.store.save(some_work([event], 10, 12)) == Saved(1, 0, 0)
        assert await kept.store.load_offsets(TOPIC_ID, [0, 1, 2]) == {0: 12, 1: 10}
        assert await kept.coupons() == {event.coupon.code: (1, "issued")}

    @pytest.mark.parametrize(("first", "end"), [(9, 12), (11, 12), (10, 10), (10, 9)])
    async def test_work_that_does_not_begin_where_the_partition_stands_changes_nothing(
        self, kept: Kept, first: int, end: int
    ) -> None:
        """The error names the partition; neither rows nor places nor dead letters change."""
        poison = [Poison(record(0, 11), "NotJsonError", "why")]
        with pytest.raises(OwnershipLostError) as raised:
            await kept.store.save(some_work([some_event()], first, end, poison=poison))
        assert raised.value.partitions == {0}
        assert await kept.store.load_offsets(TOPIC_ID, [0, 1]) == {0: 10, 1: 10}
        assert (await kept.coupons(), await kept.letters()) == ({}, 0)

    async def test_highest_version_is_what_stays(self, kept: Kept) -> None:
        """Duplicates and older versions are skipped and counted, in one piece of work or in several."""
        event = some_event()
        end = cancelled(event)
        assert await kept.store.save(some_work([event, end, event], 10, 13)) == Saved(1, 2, 0)
        assert await kept.store.save(some_work([end, event], 13, 15)) == Saved(0, 2, 0)
        assert await kept.coupons() == {event.coupon.code: (2, "cancelled")}

    async def test_poison_is_kept_beside_the_rows(self, kept: Kept) -> None:
        """It is counted and moves the place as any record does."""
        poison = [Poison(record(1, 10), "NotJsonError", "why")]
        assert await kept.store.save(some_work([], 10, 11, partition=1, poison=poison)) == Saved(0, 0, 1)
        assert await kept.letters() == 1
        assert await kept.store.load_offsets(TOPIC_ID, [1]) == {1: 11}

    async def test_first_offset_is_kept_once_stored(self, kept: Kept) -> None:
        """Only a partition that has none begins."""
        await kept.store.begin_at(TOPIC_ID, {0: 3, 2: 4})
        assert await kept.store.load_offsets(TOPIC_ID, [0, 1, 2]) == {0: 10, 1: 10, 2: 4}

    async def test_other_topic_id_is_known_as_such(self, kept: Kept) -> None:
        """A topic that was made anew is told apart, and has no offsets."""
        assert not await kept.store.knows_other_topic(TOPIC_ID)
        assert await kept.store.knows_other_topic("id-2")
        assert await kept.store.load_offsets("id-2", [0, 1]) == {}
