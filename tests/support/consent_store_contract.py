"""What every consent store must do: one test body, run on the fake and on the real one.

A test class inherits the contracts and has a fixture `world`: a store, its collections, and a way to
put documents there.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

import pytest
from bson import Timestamp

from services.consent_consumer.collection_scan import CollectionScan
from services.consent_consumer.errors import LeaseHeldError, LeaseLostError
from services.consent_consumer.store import ConsentStore, Position
from tests.support.eventually import eventually

MASTER, DETAIL = "consent_master", "consent_detail"
LONG, SHORT = 3_600.0, 0.2


class World(Protocol):
    """A store and what happens to its database from elsewhere."""

    store: ConsentStore
    collections: CollectionScan

    async def put(self, collection: str, document: Mapping[str, Any]) -> None:
        """Insert a document, or replace the one with its id."""


def position(seconds: int, increment: int = 1, *, is_invalidate: bool = False) -> Position:
    """Return a place behind an event of that cluster time."""
    token = {"_data": f"82{seconds:08X}{increment:08X}2B022C0100296E04"}
    return Position(Timestamp(seconds, increment), token, is_invalidate)


class LeaseContract:
    """The tests of the lease; each docstring is true of every store."""

    async def test_free_lease_goes_to_one_and_the_next_fence_is_higher(self, world: World) -> None:
        """Who asks second gets nothing until the first gives it back, and each fence is above all before."""
        store = world.store
        first = await store.take_lease("a", "one", LONG)
        assert first is not None
        assert await store.take_lease("b", "two", LONG) is None
        await store.give_back_lease("a")
        second = await store.take_lease("b", "two", LONG)

        assert second is not None
        assert second > first

    async def test_ten_who_ask_at_once_get_one_lease(self, world: World) -> None:
        """Nine are told that another has it."""
        fences = await asyncio.gather(*(world.store.take_lease(str(n), "racer", LONG) for n in range(10)))

        assert len([fence for fence in fences if fence is not None]) == 1

    async def test_lease_that_ran_out_goes_to_the_next_and_cannot_be_renewed(self, world: World) -> None:
        """Nobody needs to give it back; who had it hears so when it renews, before and after another takes it."""
        store = world.store
        first = await store.take_lease("a", "one", SHORT)
        await eventually(lambda: self._is_over(world), seconds=30)
        with pytest.raises(LeaseLostError):
            await store.renew_lease("a", LONG)
        second = await store.take_lease("b", "two", LONG)
        with pytest.raises(LeaseLostError):
            await store.renew_lease("a", LONG)

        assert first is not None
        assert second is not None
        assert second > first

    async def test_renewed_lease_outlives_its_first_time(self, world: World) -> None:
        """It ends so many seconds after the renewal."""
        store = world.store
        await store.take_lease("a", "one", SHORT)
        before = await store.find_lease()
        await store.renew_lease("a", LONG)
        after = await store.find_lease()

        assert before is not None
        assert after is not None
        assert after.expires_at - before.expires_at > timedelta(seconds=LONG / 2)
        assert (after.holder, after.fence, after.is_held) == ("one", before.fence, True)

    async def test_asking_again_with_the_same_claim_gives_the_same_fence(self, world: World) -> None:
        """Whose answer was lost asks again, has not locked itself out, and has the lease's whole time from then on."""
        first = await world.store.take_lease("a", "one", SHORT)
        before = await world.store.find_lease()

        assert await world.store.take_lease("a", "one", LONG) == first
        assert await world.store.take_lease("b", "two", LONG) is None
        after = await world.store.find_lease()
        assert before is not None
        assert after is not None
        assert after.expires_at - before.expires_at > timedelta(seconds=LONG / 2)

    async def test_giving_back_what_another_has_takes_nothing_from_it(self, world: World) -> None:
        """Neither does giving back twice, or what nobody ever had."""
        store = world.store
        assert await store.find_lease() is None
        await store.give_back_lease("a")
        await store.take_lease("b", "two", LONG)
        await store.give_back_lease("a")
        await store.renew_lease("b", LONG)
        lease = await store.find_lease()

        assert lease is not None
        assert lease.is_held

    @pytest.mark.parametrize("text", ["$fence", "$$NOW", "a.b", "Été 😀"])
    async def test_names_are_text_whatever_a_query_language_makes_of_them(self, world: World, text: str) -> None:
        """A holder and a claim are what they are."""
        fence = await world.store.take_lease(text, text, LONG)
        lease = await world.store.find_lease()

        assert lease is not None
        assert (lease.holder, lease.fence) == (text, fence)

    @staticmethod
    async def _is_over(world: World) -> bool:
        lease = await world.store.find_lease()
        return lease is not None and not lease.is_held


class PositionContract:
    """The tests of positions and of an operator's skip."""

    async def test_stream_that_never_began_has_no_position(self, world: World) -> None:
        """To take it over gives none, then as before."""
        assert await world.store.find_position(MASTER) is None
        assert await world.store.take_position(MASTER, 1) is None
        assert await world.store.take_position(MASTER, 2) is None

    @pytest.mark.parametrize("saved", [position(7), position(7, is_invalidate=True), Position(Timestamp(7, 3), None)])
    async def test_saved_position_is_found_with_all_it_says(self, world: World, saved: Position) -> None:
        """By whoever takes it over and by whoever only looks; the other stream has nothing of it."""
        store = world.store
        await store.take_position(MASTER, 1)
        await store.save_position(MASTER, saved, 1)
        found = await store.find_position(MASTER)

        assert found is not None
        assert (found.position, found.fence) == (saved, 1)
        assert found.saved_at is not None
        assert await store.take_position(MASTER, 2) == saved
        assert await store.find_position(DETAIL) is None

    async def test_position_never_moves_back_under_one_fence(self, world: World) -> None:
        """An older one is left aside; the same one and a newer one of the same time are stored."""
        store = world.store
        await store.take_position(MASTER, 1)
        await store.save_position(MASTER, position(7, 2), 1)
        await store.save_position(MASTER, position(7, 2), 1)
        quiet = Position(Timestamp(7, 2), {"_data": "82FF"})
        await store.save_position(MASTER, quiet, 1)
        await store.save_position(MASTER, position(7, 1), 1)
        await store.save_position(MASTER, position(6, 9), 1)

        assert await store.take_position(MASTER, 1) == quiet

    async def test_save_of_an_overtaken_holder_is_refused_before_the_next_one_has_saved(self, world: World) -> None:
        """To take the position over is enough: what the old holder would store, however new, is refused."""
        store = world.store
        await store.take_position(MASTER, 1)
        await store.save_position(MASTER, position(7), 1)
        assert await store.take_position(MASTER, 2) == position(7)
        with pytest.raises(LeaseLostError):
            await store.save_position(MASTER, position(9), 1)
        with pytest.raises(LeaseLostError):
            await store.take_position(MASTER, 1)

        await store.save_position(MASTER, position(8), 2)
        assert await store.take_position(MASTER, 2) == position(8)

    async def test_save_of_what_was_never_taken_is_refused(self, world: World) -> None:
        """Neither a stream that nobody took, nor a fence that is higher than the one that took it."""
        store = world.store
        with pytest.raises(LeaseLostError):
            await store.save_position(MASTER, position(7), 1)
        await store.take_position(MASTER, 1)
        with pytest.raises(LeaseLostError):
            await store.save_position(MASTER, position(7), 2)

        assert await store.take_position(MASTER, 1) is None

    async def test_skip_moves_the_stream_and_leaves_a_line(self, world: World) -> None:
        """Also back, and also a stream that never began; the line says who, why, from where and to where."""
        store = world.store
        fence = await store.take_lease("a", "one", LONG)
        assert fence is not None
        await store.take_position(MASTER, fence)
        await store.save_position(MASTER, position(9), fence)
        await store.give_back_lease("a")
        await store.skip(MASTER, position(5), by="ops-1", reason="the oplog rolled over")
        await store.skip(DETAIL, position(6), by="$ops", reason="$$NOW")
        lines = await store.list_audit(10)

        shown = [(line.stream, line.by, line.reason, line.before, line.after) for line in lines]
        assert shown == [
            (DETAIL, "$ops", "$$NOW", None, position(6)),
            (MASTER, "ops-1", "the oplog rolled over", position(9), position(5)),
        ]
        assert await store.list_audit(1) == lines[:1]
        with pytest.raises(LeaseLostError):
            await store.save_position(MASTER, position(10), fence)
        after = await store.take_lease("b", "two", LONG)
        assert after is not None
        assert await store.take_position(MASTER, after) == position(5)

    async def test_skip_is_refused_while_an_instance_is_at_work(self, world: World) -> None:
        """The operator hears who it is; nothing moves, no line is left, and the instance goes on."""
        store = world.store
        fence = await store.take_lease("a", "one", LONG)
        assert fence is not None
        await store.take_position(MASTER, fence)
        await store.save_position(MASTER, position(9), fence)
        with pytest.raises(LeaseHeldError, match="one holds the lease"):
            await store.skip(MASTER, position(5), by="ops-1", reason="why not")

        assert await store.list_audit(10) == []
        await store.save_position(MASTER, position(10), fence)
        await store.renew_lease("a", LONG)


class ScanContract:
    """The tests of a collection's scan."""

    async def test_scan_gives_every_document_once_in_the_order_of_ids(self, world: World) -> None:
        """Seven documents in pages of three, then an empty page; each page says the same time."""
        for number in (5, 3, 1, 7, 2, 6, 4):
            await world.put(MASTER, {"_id": number, "member_id": f"m-{number}"})
        await world.put(DETAIL, {"_id": 9})
        found = []
        page = await world.collections.scan(MASTER, None, 3)
        times = {page.cluster_time}
        while page.next is not None:
            found += [dict(document) for document in page.documents]
            page = await world.collections.scan(MASTER, page.next, 3)
            times.add(page.cluster_time)

        assert found == [{"_id": number, "member_id": f"m-{number}"} for number in range(1, 8)]
        assert len(times) == 1

    async def test_what_is_written_during_a_scan_is_not_seen_by_it(self, world: World) -> None:
        """Neither a new document nor a new content; a scan that goes on in a new snapshot sees both."""
        for number in (1, 2):
            await world.put(MASTER, {"_id": number, "status": "granted"})
        page = await world.collections.scan(MASTER, None, 1)
        await world.put(MASTER, {"_id": 2, "status": "withdrawn"})
        await world.put(MASTER, {"_id": 3, "status": "granted"})
        assert page.next is not None
        same = await world.collections.scan(MASTER, page.next, 10)
        newer = await world.collections.scan(MASTER, replace(page.next, cluster_time=None), 10)

        assert [dict(document) for document in same.documents] == [{"_id": 2, "status": "granted"}]
        assert [document["status"] for document in newer.documents] == ["withdrawn", "granted"]
        assert newer.cluster_time > same.cluster_time == page.cluster_time

    async def test_scan_of_nothing_is_at_its_end_at_once(self, world: World) -> None:
        """A collection that is empty, or not there, still has a time at which it is so."""
        page = await world.collections.scan(MASTER, None, 10)

        assert (list(page.documents), page.next) == ([], None)
        assert page.cluster_time.time > 0
