"""The fake consent store keeps the contract of the real one."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from services.consent_consumer.errors import SnapshotTooOldError
from tests.support.consent_letter_contract import DeadLetterContract
from tests.support.consent_store_contract import MASTER, LeaseContract, PositionContract, ScanContract
from tests.support.fake_consent_store import FakeCollectionScan, FakeConsentStore, FakeDeadLetters


class FakeWorld:
    """A fake database of two collections."""

    def __init__(self) -> None:
        self.store = FakeConsentStore()
        self.collections = FakeCollectionScan()

    async def put(self, collection: str, document: Mapping[str, Any]) -> None:
        """Insert a document, or replace the one with its id."""
        if collection == MASTER:
            self.collections.documents[document["_id"]] = document
        await asyncio.sleep(0)


@pytest.fixture
def world() -> FakeWorld:
    """An empty one."""
    return FakeWorld()


@pytest.fixture
def letters() -> FakeDeadLetters:
    """None."""
    return FakeDeadLetters()


class TestFakeConsentStore(LeaseContract, PositionContract):
    """The contract, on dictionaries."""


class TestFakeDeadLetters(DeadLetterContract):
    """The contract, on dictionaries."""


class TestFakeCollectionScan(ScanContract):
    """The contract, on dictionaries."""


async def test_forgotten_snapshot_is_too_old(world: FakeWorld) -> None:
    """A scan that goes on after that is told so, and a new one begins."""
    await world.put(MASTER, {"_id": 1})
    page = await world.collections.scan(MASTER, None, 1)
    world.collections.forget()
    with pytest.raises(SnapshotTooOldError):
        await world.collections.scan(MASTER, page.next, 1)

    assert (await world.collections.scan(MASTER, None, 1)).documents == page.documents
