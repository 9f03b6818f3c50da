"""Make the topics the services need, where they are missing: ``python -m deploy.topics``.

Settings have the prefix ``TOPICS_``, such as ``TOPICS_KAFKA__BOOTSTRAP``. Status 0 when every topic is there as it
should be, 1 when not, 78 for bad settings. A topic that exists with another number of partitions is an error and left
alone: more partitions would move keys, and with them the order of a coupon's events.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined] # re-exported without __all__
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.errors import DependencyUnavailable, SettingsError
from runtime.kafka_admin import KafkaAdmin
from runtime.kafka_client import DEPENDENCY, client_config
from runtime.settings import EnvironmentSettings, KafkaSettings, Seconds, load_settings

_PAUSE_SECONDS = 0.5
_CALL_SECONDS = 5.0


@dataclass(frozen=True)
class Topic:
    """A topic as it should be; the replication factor counts only when it is made."""

    name: str
    partitions: int = 6
    replication_factor: int = 1


class TopicMismatchError(RuntimeError):
    """Say that a topic exists, but with another number of partitions."""


class TopicsSettings(EnvironmentSettings):
    """Where the brokers are, and what the topic of coupon events should be like."""

    model_config = SettingsConfigDict(env_prefix="TOPICS_")

    kafka: KafkaSettings
    coupon_events: str = Field(default="coupon-events", pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    partitions: int = Field(default=6, ge=1, le=1_000)
    replication_factor: int = Field(default=1, ge=1, le=10)
    timeout_seconds: Seconds = 30.0


async def ensure_topics(kafka: KafkaSettings, topics: Sequence[Topic], *, timeout_seconds: float = 30.0) -> list[str]:
    """Make the topics that are missing, and return their names; several callers at once are harmless.

    The brokers may still be starting: it asks again until ``timeout_seconds`` have passed. A cancel leaves the thread
    that asks behind, until then at most.

    Raises:
        TopicMismatchError: a topic exists with another number of partitions.
        DependencyUnavailable: the brokers did not answer, or refused, until the end; it has their last word.
        OSError, ValueError: the file of the password, or of the authority's certificate, cannot be used.
    """
    return await asyncio.to_thread(_ensure, kafka, topics, time.monotonic() + timeout_seconds)


def _ensure(kafka: KafkaSettings, topics: Sequence[Topic], deadline: float) -> list[str]:
    admin = KafkaAdmin(client_config(kafka, name="topics"))
    while True:
        try:
            missing = _missing(admin, topics)
            _create(admin, missing)
        except (KafkaException, TimeoutError) as error:
            if time.monotonic() >= deadline:
                word = admin.explain(error.args[0]) if isinstance(error, KafkaException) else "no answer in time"
                raise DependencyUnavailable(DEPENDENCY, word) from error
            time.sleep(_PAUSE_SECONDS)
        else:
            return [topic.name for topic in missing]


def _missing(admin: KafkaAdmin, topics: Sequence[Topic]) -> list[Topic]:
    known = admin.client.list_topics(timeout=_CALL_SECONDS).topics
    missing = []
    for topic in topics:
        metadata = known.get(topic.name)
        if metadata is None:
            missing.append(topic)
        elif len(metadata.partitions) != topic.partitions:
            raise TopicMismatchError(
                f"topic {topic.name} has {len(metadata.partitions)} partitions, not {topic.partitions}; "
                "changing that moves keys, so it is not done here"
            )
    return missing


def _create(admin: KafkaAdmin, topics: Sequence[Topic]) -> None:
    wanted = [
        NewTopic(topic.name, num_partitions=topic.partitions, replication_factor=topic.replication_factor)
        for topic in topics
    ]
    if not wanted:
        return
    for future in admin.client.create_topics(wanted, operation_timeout=_CALL_SECONDS).values():
        try:
            future.result(timeout=2 * _CALL_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def main() -> int:
    """Make the topics that the environment's settings ask for; return the process's status."""
    try:
        settings = load_settings(TopicsSettings)
    except SettingsError as error:
        sys.stderr.write(f"topics: {error}\n")
        return 78
    topic = Topic(settings.coupon_events, settings.partitions, settings.replication_factor)
    try:
        made = asyncio.run(ensure_topics(settings.kafka, [topic], timeout_seconds=settings.timeout_seconds))
    except (DependencyUnavailable, TopicMismatchError, OSError, ValueError) as error:
        sys.stderr.write(f"topics: {error}\n")
        return 1
    sys.stdout.write(f"topics: {', '.join(made) + ' made' if made else 'nothing to do'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
