"""Look at the topic and at the stored offsets from time to time, beside the reading.

It notices what reading alone would not: a topic that was made anew, offsets that an operator moved while nothing was
coming in, brokers that are away, and the lag.
"""

import asyncio
import time

from patterns import Context, ContextError
from runtime.errors import DependencyUnavailable
from runtime.kafka_consumer import KafkaConsumer
from runtime.kafka_topic import TopicDescription
from runtime.logs import get_logger
from services.coupon_consumer.decode import Decoded
from services.coupon_consumer.metrics import ConsumeMetrics
from services.coupon_consumer.position import Positions, Standing, Topic
from services.coupon_consumer.store import Store

_log = get_logger(__name__)


class Watch:
    """One look every `check_seconds`; the brokers count as down when they have been silent for `down_seconds`."""

    def __init__(
        self,
        consumer: KafkaConsumer[Decoded],
        positions: Positions,
        store: Store,
        topic: Topic,
        metrics: ConsumeMetrics,
        *,
        check_seconds: float,
        down_seconds: float,
    ) -> None:
        self._consumer = consumer
        self._positions = positions
        self._store = store
        self._topic = topic
        self._metrics = metrics
        self._check_seconds = check_seconds
        self._down_seconds = down_seconds
        self._answered_at = time.monotonic()
        self._is_silent = False
        self._shown: set[int] = set()

    async def run(self, ctx: Context) -> None:
        """Look until the context ends."""
        try:
            while True:
                await ctx.run(asyncio.sleep(self._check_seconds))
                try:
                    await ctx.run(self.look())
                except DependencyUnavailable as error:
                    if not self._is_silent:
                        self._is_silent = True
                        _log.warning("A server does not answer", error=str(error))
                else:
                    self._is_silent = False
        except ContextError:
            return

    async def check(self) -> None:
        """Return when the brokers answered lately, for readiness.

        Raises:
            DependencyUnavailable: They did not.
        """
        silent_seconds = time.monotonic() - self._answered_at
        if silent_seconds > self._down_seconds:
            raise DependencyUnavailable("kafka", f"no answer for {silent_seconds:.0f} s")

    async def look(self) -> None:
        """Look once: reposition what no longer stands where this member thinks, and measure the group's lag.

        Raises:
            DependencyUnavailable: Postgres or the brokers do not answer.
        """
        topic = await self._topic.describe()
        self._answered_at = time.monotonic()
        standings = self._current()
        made_anew = {p: s.generation for p, s in standings.items() if s.topic_id != topic.topic_id}
        if made_anew:
            _log.warning("The topic was made anew", topic_id=topic.topic_id, partitions=sorted(made_anew))
            self._consumer.reposition(made_anew)
            return
        stored = await self._store.load_offsets(topic.topic_id, topic.partitions)
        self._follow(standings, stored)
        await self._measure_lag(topic, stored)

    def _current(self) -> dict[int, Standing]:
        owned = self._consumer.owned()
        standings = self._positions.standings()
        return {p: s for p, s in standings.items() if owned.get(p) == s.generation}

    def _follow(self, standings: dict[int, Standing], stored: dict[int, int]) -> None:
        """Go where an operator, or another member, has moved a partition to."""
        now = self._current()
        moved = {
            partition: standing.generation
            for partition, standing in standings.items()
            if stored.get(partition) != standing.next_offset
            and now.get(partition) == standing
            and not self._consumer.is_in_work(partition)
        }
        if moved:
            _log.warning("Stored offsets were moved", partitions=sorted(moved))
            self._consumer.reposition(moved)

    async def _measure_lag(self, topic: TopicDescription, stored: dict[int, int]) -> None:
        """Show the lag of every partition, whoever owns it: it grows just when the group rebalances and nobody does."""
        nexts = stored | await self._positions.first_offsets(topic.topic_id, topic.partitions, stored)
        ends = await self._topic.latest(topic.partitions)
        fetched_ends = self._consumer.ends()
        # A fetch knows the end better than the embedded broker tells it; what was fetched before a revoke may be old.
        ends |= {p: max(ends[p], fetched_ends.get(p, 0)) for p in self._current() if p in ends}
        for partition in self._shown - ends.keys():
            self._metrics.lag.remove(partition)
        self._shown = set(ends)
        for partition, end in ends.items():
            self._metrics.lag.labels(partition).set(max(0, end - nexts[partition]))
