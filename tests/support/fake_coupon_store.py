"""The consumer's tables and its brokers' answers in memory, with failures that a test asks for."""

import asyncio
from collections.abc import Iterable, Mapping

from runtime.errors import DependencyUnavailable
from runtime.kafka_topic import TopicDescription
from services.coupon_consumer.decode import Poison
from services.coupon_consumer.errors import OwnershipLostError, RowRefusedError
from services.coupon_consumer.event_row import EventRow, newest
from services.coupon_consumer.store import Saved, Work


class FakeCouponStore:
    """Keeps offsets, coupons and dead letters by the rules of the real store.

    Attributes:
        failures: how many of the next calls find the database away.
        tries: every call of `save`, failed or not.
        refused_reward: rows of this reward are refused, as by a constraint that the decoder does not know of.
    """

    def __init__(self) -> None:
        self.offsets: dict[tuple[str, int], int] = {}
        self.coupons: dict[str, EventRow] = {}
        self.dead_letters: list[Poison] = []
        self.failures = 0
        self.tries = 0
        self.refused_reward = "rw-bad"

    def _reach(self) -> None:
        if self.failures:
            self.failures -= 1
            raise DependencyUnavailable("postgres", "away")

    async def load_offsets(self, topic_id: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the next offset of each partition that has one."""
        self._reach()
        return {p: self.offsets[topic_id, p] for p in partitions if (topic_id, p) in self.offsets}

    async def begin_at(self, topic_id: str, offsets: Mapping[int, int]) -> None:
        """Store where partitions begin, unless they have an offset."""
        self._reach()
        for partition, offset in offsets.items():
            self.offsets.setdefault((topic_id, partition), offset)

    async def knows_other_topic(self, topic_id: str) -> bool:
        """Say whether there are offsets under another topic id."""
        self._reach()
        return any(known != topic_id for known, _ in self.offsets)

    async def save(self, work: Work) -> Saved:
        """Store all of it, or nothing."""
        self.tries += 1
        self._reach()
        lost = [
            step.partition
            for step in work.progress
            if self.offsets.get((step.topic_id, step.partition)) != step.expected or step.next_offset <= step.expected
        ]
        if lost:
            raise OwnershipLostError(lost)
        if any(row.reward_id == self.refused_reward for row in newest(work.rows)):
            raise RowRefusedError("CheckViolationError", "23514 odd")
        for step in work.progress:
            self.offsets[step.topic_id, step.partition] = step.next_offset
        stored = 0
        for row in newest(work.rows):
            known = self.coupons.get(row.code)
            if known is None or int(known.version) < int(row.version):
                self.coupons[row.code] = row
                stored += 1
        self.dead_letters += work.poison
        return Saved(stored, len(work.rows) - stored, len(work.poison))


class FakeTopic:
    """A topic's id, partitions, beginnings and ends; `is_silent`, `silent_seconds`: no answer, or a late one."""

    def __init__(self, topic_id: str = "id-1", *, first: int = 0, end: int = 100) -> None:
        self.topic_id = topic_id
        self.partitions: tuple[int, ...] = (0, 1, 2)
        self.first = first
        self.end = end
        self.is_silent = False
        self.silent_seconds = 0.0

    async def describe(self) -> TopicDescription:
        """Return id and partitions."""
        if self.is_silent:
            raise DependencyUnavailable("kafka", "silent")
        await asyncio.sleep(self.silent_seconds)
        return TopicDescription(self.topic_id, self.partitions)

    async def earliest(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the first offsets."""
        return self._offsets(partitions, self.first)

    async def latest(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the ends."""
        return self._offsets(partitions, self.end)

    def _offsets(self, partitions: Iterable[int], offset: int) -> dict[int, int]:
        wanted = list(partitions)
        if not set(wanted) <= set(self.partitions):
            raise DependencyUnavailable("kafka", "UNKNOWN_TOPIC_OR_PART")
        return dict.fromkeys(wanted, offset)
