"""Know where each partition stands: what Postgres stored, under which id of the topic."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from runtime.kafka_batch import Assigned, Batch
from runtime.kafka_topic import TopicDescription
from runtime.logs import get_logger
from services.coupon_consumer.decode import Decoded
from services.coupon_consumer.errors import OffsetOutOfRangeError
from services.coupon_consumer.store import Progress, Store

_log = get_logger(__name__)
Start = Literal["earliest", "latest"]


class Topic(Protocol):
    """What is asked of the brokers; `runtime.kafka_topic.KafkaTopic` answers it."""

    async def describe(self) -> TopicDescription: ...  # noqa: D102 - as there
    async def earliest(self, partitions: Iterable[int]) -> dict[int, int]: ...  # noqa: D102 - as there
    async def latest(self, partitions: Iterable[int]) -> dict[int, int]: ...  # noqa: D102 - as there


class Reader(Protocol):
    """Where an answer to `Assigned` goes; `runtime.kafka_consumer.KafkaConsumer` takes it."""

    def place(self, partition: int, generation: int, next_offset: int) -> None: ...  # noqa: D102 - as there


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a partition stands, as far as this member knows."""

    topic_id: str
    generation: int
    next_offset: int


class Positions:
    """The standings of the partitions that this member reads; for one task."""

    def __init__(self, reader: Reader, store: Store, topic: Topic, start: Start) -> None:
        self._reader = reader
        self._store = store
        self._topic = topic
        self._start: Final = start
        self._standings: dict[int, Standing] = {}

    async def place(self, assigned: Assigned) -> None:
        """Read where each partition stands in Postgres and have the thread read on from there.

        A group that sees the topic for the first time begins as the settings say. A partition that comes later, or
        whose topic was made anew, begins at its beginning: nothing in it was seen.

        Raises:
            OffsetOutOfRangeError: The broker has no such offset though the topic is the same.
            DependencyUnavailable: Postgres or the brokers do not answer; nothing was placed.
        """
        partitions = sorted(assigned.generations)
        topic = await self._topic.describe()
        topic_id = topic.topic_id
        everywhere = {*topic.partitions, *partitions}
        if assigned.is_out_of_range:
            self._refuse_loss(partitions, topic_id)
        stored = await self._store.load_offsets(topic_id, everywhere)
        if not stored.keys() >= assigned.generations.keys():
            # At the end all partitions begin together, whoever reads them: one without an offset later is a new one.
            begun = everywhere if self._start == "latest" else partitions
            await self._store.begin_at(topic_id, await self.first_offsets(topic_id, begun, stored))
            stored = await self._store.load_offsets(topic_id, everywhere)
        for partition in partitions:
            standing = Standing(topic_id, assigned.generations[partition], stored[partition])
            self._standings[partition] = standing
            self._reader.place(partition, standing.generation, standing.next_offset)
        _log.info("Partitions placed", offsets={str(p): stored[p] for p in partitions}, topic_id=topic_id)

    def _refuse_loss(self, partitions: Iterable[int], topic_id: str) -> None:
        for partition in partitions:
            known = self._standings.get(partition)
            if known is not None and known.topic_id == topic_id:
                raise OffsetOutOfRangeError(
                    f"partition {partition} has no offset {known.next_offset}: records are gone that nobody has read;"
                    " decide where to go on with: python -m services.coupon_consumer reset-offsets"
                )

    async def first_offsets(
        self, topic_id: str, partitions: Collection[int], stored: Mapping[int, int]
    ) -> dict[int, int]:
        """Return where those of these partitions begin that have no stored offset.

        If any partition of the topic has one, the group knows the topic, and what has none is new.

        Raises:
            DependencyUnavailable: Postgres or the brokers do not answer.
        """
        unbegun = [partition for partition in partitions if partition not in stored]
        if not unbegun:
            return {}
        is_known = bool(stored) or await self._store.knows_other_topic(topic_id)
        if self._start == "earliest" or is_known:
            return await self._topic.earliest(unbegun)
        return await self._topic.latest(unbegun)

    def progress(self, batches: Iterable[Batch[Decoded]]) -> list[Progress]:
        """Return how far these batches take their partitions; several of one partition follow on one another.

        A partition that stands behind them already, since an earlier try stored them, is left out.
        """
        steps: dict[int, Progress] = {}
        for batch in batches:
            step = steps.get(batch.partition)
            if step is None:
                standing = self._standings[batch.partition]
                step = Progress(standing.topic_id, batch.partition, standing.next_offset, standing.next_offset)
            steps[batch.partition] = replace(step, next_offset=batch.next_offset)
        return [step for step in steps.values() if step.next_offset > step.expected]

    def advance(self, progress: Iterable[Progress]) -> None:
        """Note that this progress is stored."""
        for step in progress:
            standing = self._standings[step.partition]
            self._standings[step.partition] = replace(standing, next_offset=step.next_offset)

    def standings(self) -> dict[int, Standing]:
        """Return a copy of where the partitions stand, including such as were given up since."""
        return dict(self._standings)
