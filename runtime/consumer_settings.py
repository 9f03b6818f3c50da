"""Settings of a Kafka consumer: its group, its times and the bounds on what it may hold in memory."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from runtime.settings import Seconds, Section

_REVOKE_SHARE = 0.2


class ConsumerSettings(Section):
    """Say as whom records are read and how much may wait.

    ``group_protocol``: ``consumer`` (KIP-848) where the brokers know it, else ``classic``. With the first, assignor,
    session timeout and heartbeat are the broker's settings.
    ``group_instance_id``: static membership. A member that comes back under its id within the session's timeout gets
    its partitions back without a rebalance; one that stops keeps them for that long.

    In memory at once are, at most, ``fetch_queue_bytes`` in the client, one chunk, and ``queue_bytes`` that were handed
    over and are not yet stored. Of a record its payload and key are counted, and 256 bytes for everything else of it:
    headers above that are bounded by the brokers' ``message.max.bytes`` alone.
    """

    topic: str = Field(default="coupon-events", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    group: str = Field(default="coupon-consumer", min_length=1, max_length=200)
    group_protocol: Literal["classic", "consumer"] = "classic"
    group_instance_id: str | None = Field(default=None, min_length=1, max_length=200)
    assignor: Literal["cooperative-sticky", "range", "roundrobin"] = "cooperative-sticky"
    session_timeout_seconds: float = Field(default=45.0, ge=0.001, le=3_600.0)
    max_poll_interval_seconds: Seconds = 300.0
    poll_timeout_seconds: float = Field(default=0.1, ge=0.001, le=5.0)
    chunk_records: int = Field(default=1_000, ge=1, le=100_000)
    queue_batches: int = Field(default=16, ge=1, le=10_000)
    queue_bytes: int = Field(default=16 * 1024 * 1024, ge=65_536, le=2_147_483_647)
    fetch_queue_bytes: int = Field(default=16 * 1024 * 1024, ge=1_048_576, le=2_147_483_135)
    revoke_wait_seconds: Seconds = 5.0
    commit_interval_seconds: Seconds = 1.0
    close_timeout_seconds: Seconds = 10.0

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions among the group's times."""
        if self.session_timeout_seconds > self.max_poll_interval_seconds:
            yield "session_timeout_seconds is greater than max_poll_interval_seconds"
        if self.revoke_wait_seconds > _REVOKE_SHARE * self.max_poll_interval_seconds:
            yield f"revoke_wait_seconds is greater than {_REVOKE_SHARE:.0%} of max_poll_interval_seconds"
        if self.revoke_wait_seconds >= self.close_timeout_seconds:
            yield "revoke_wait_seconds is not less than close_timeout_seconds, which it is a part of"

    def stop_seconds(self) -> float:
        """Return the bound on leaving the group."""
        return self.close_timeout_seconds

    def client_settings(self) -> dict[str, str | int | float | bool]:
        """Return librdkafka's settings for these; where to read is ours to say, so it may neither commit nor reset."""
        group: dict[str, str | int | float | bool] = {"group.id": self.group, "group.protocol": self.group_protocol}
        if self.group_instance_id is not None:
            group["group.instance.id"] = self.group_instance_id
        if self.group_protocol == "classic":
            group["partition.assignment.strategy"] = self.assignor
            group["session.timeout.ms"] = round(self.session_timeout_seconds * 1_000)
        return {
            **group,
            "max.poll.interval.ms": round(self.max_poll_interval_seconds * 1_000),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": self.fetch_queue_bytes // 1_024,
            "fetch.max.bytes": self.fetch_queue_bytes,
            "fetch.wait.max.ms": 100,
            "allow.auto.create.topics": False,
        }

    @property
    def is_cooperative(self) -> bool:
        """Whether a rebalance moves single partitions; with the older assignors it takes all away and gives anew."""
        return self.group_protocol == "consumer" or self.assignor == "cooperative-sticky"
