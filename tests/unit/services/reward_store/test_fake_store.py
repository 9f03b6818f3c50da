"""The fake store keeps the contract, so what is tested with it is tested with something like the real one."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from loyalty.reward import Member, Redemption, Reward
from services.reward_store.outbox import OutboxRow
from tests.support.fake_reward_store import FakeRewardStore
from tests.support.reward_store_contract import RewardStoreContract


class FakeWorld:
    """The fake store, and its dictionaries."""

    def __init__(self) -> None:
        self.store = FakeRewardStore()

    async def put_reward(self, reward: Reward) -> None:
        """See `World`."""
        self.store.by_reward[reward.reward_id] = reward

    async def put_member(self, member: Member) -> None:
        """See `World`."""
        self.store.by_member[member.member_id] = member

    async def redemptions(self) -> list[Redemption]:
        """See `World`."""
        return list(self.store.redemptions.values())

    async def events(self) -> Sequence[OutboxRow]:
        """See `World`."""
        return [waiting.row for waiting in self.store.outbox.waiting]

    async def age_keys(self, by: timedelta) -> None:
        """See `World`."""
        for place, (body_hash, answer, at) in self.store.answers.items():
            self.store.answers[place] = (body_hash, answer, at - by)

    async def age_leases(self, by: timedelta) -> None:
        """See `World`."""
        for redemption_id in self.store.claimed_until:
            self.store.claimed_until[redemption_id] -= by
            self.store.cancelling_since[redemption_id] -= by


class TestFakeRewardStore(RewardStoreContract):
    """The contract, on dictionaries."""

    @pytest.fixture
    def world(self) -> FakeWorld:
        """A store with nothing in it."""
        return FakeWorld()
