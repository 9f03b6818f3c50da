"""Ask the brokers about a topic: its id, its partitions, and where they begin and end."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, TypeVar

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined] # exported, if not in __all__

from patterns import Context, DeadlineExceeded
from runtime.errors import DependencyUnavailable
from runtime.kafka_admin import KafkaAdmin
from runtime.kafka_client import DEPENDENCY, ClientConfig
from runtime.log_damper import LogDamper
from runtime.logs import get_logger

T = TypeVar("T")

_log = get_logger(__name__)
_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as it is now. A topic that was deleted and made anew has the same name and another id."""

    topic_id: str
    partitions: tuple[int, ...]


class KafkaTopic:
    """Questions about one topic, each answered within `timeout_seconds` or not at all.

    Raises:
        DependencyUnavailable: From every method: the brokers did not answer, or there is no such topic yet.
    """

    def __init__(self, client_settings: ClientConfig, topic: str, *, timeout_seconds: float = 5.0) -> None:
        self._admin = KafkaAdmin(client_settings)
        self._topic = topic
        self._timeout_seconds = timeout_seconds

    async def describe(self) -> TopicDescription:
        """Return the topic's id and partitions."""
        names = TopicCollection([self._topic])
        futures = self._admin.client.describe_topics(names, request_timeout=self._timeout_seconds)
        found = await self._answer(futures[self._topic])
        return TopicDescription(str(found.topic_id), tuple(sorted(each.id for each in found.partitions)))

    async def wait_for_topic(self, ctx: Context) -> None:
        """Return when the brokers know the topic; ask again until the context ends, and log why at times.

        Raises:
            DependencyUnavailable: The context's time ran out; the message has the last error.
            ContextCancelled: The context was cancelled, as by a signal.
        """
        last_error: DependencyUnavailable | None = None
        damper = LogDamper()
        try:
            while True:
                try:
                    await ctx.run(self.describe())
                except DependencyUnavailable as error:
                    last_error = error
                    if damper.is_news("topic"):
                        _log.warning("Waiting for the topic", topic=self._topic, error=str(error))
                else:
                    return
                await ctx.run(asyncio.sleep(_POLL_SECONDS))
        except DeadlineExceeded:
            why = last_error or self._admin.reason() or "none, no answer at all"
            detail = f"topic {self._topic} not found in time; last error: {why}"
            raise DependencyUnavailable(DEPENDENCY, detail) from last_error

    async def earliest(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the first offset that each partition still has."""
        return await self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call] # the client's

    async def latest(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the offset that each partition's next record will get."""
        return await self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call] # the client's

    async def at_time(self, partitions: Iterable[int], timestamp_ms: int) -> dict[int, int]:
        """Return the first offset of each partition whose record is not older; the end where all are older."""
        wanted = list(partitions)
        found = await self._offsets(wanted, OffsetSpec.for_timestamp(timestamp_ms))
        older = [partition for partition in wanted if found[partition] < 0]
        return found | (await self.latest(older) if older else {})

    async def _offsets(self, partitions: Iterable[int], spec: OffsetSpec) -> dict[int, int]:
        places = {TopicPartition(self._topic, partition): spec for partition in partitions}
        futures = self._admin.client.list_offsets(places, request_timeout=self._timeout_seconds)
        return {place.partition: (await self._answer(future)).offset for place, future in futures.items()}

    async def _answer(self, future: "Future[T]") -> T:
        try:
            async with asyncio.timeout(self._timeout_seconds + 1.0):
                return await asyncio.wrap_future(future)
        except KafkaException as error:
            raise DependencyUnavailable(DEPENDENCY, self._admin.explain(error.args[0])) from error
        except TimeoutError as error:
            raise DependencyUnavailable(DEPENDENCY, self._admin.reason() or "no answer in time") from error
