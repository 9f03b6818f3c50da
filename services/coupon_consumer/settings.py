"""What coupon_consumer can be told from outside."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.clean_up import CleanUpSettings
from runtime.consumer_settings import ConsumerSettings
from runtime.crash_point import CrashSettings
from runtime.settings import KafkaSettings, PostgresSettings, ProcessSettings, Seconds, Section


class RetrySettings(Section):
    """Bound the tries while Postgres or the brokers are away: a random half to whole of a time that doubles.

    `first_seconds` is 2 or more, so that there is at most one try a second.
    """

    first_seconds: float = Field(default=2.0, ge=2.0, le=60.0)
    most_seconds: float = Field(default=4.0, ge=2.0, le=600.0)

    def conflicts(self) -> Iterator[str]:
        """Yield times that are out of order."""
        if self.first_seconds > self.most_seconds:
            yield "first_seconds is greater than most_seconds"


class BreakerSettings(Section):
    """Say what a flood of poison is: `poison_share` of the last `window_records`, once `records_min` were seen.

    Poison is what cannot be understood and what Postgres refuses, so a batch counts once it is stored.
    Then the consumer stands still and is not ready, for `pause_first_seconds`, doubling up to `pause_most_seconds`
    while the flood lasts; between two pauses it takes one batch.
    """

    window_records: int = Field(default=2_000, ge=10, le=1_000_000)
    records_min: int = Field(default=200, ge=1, le=1_000_000)
    poison_share: float = Field(default=0.5, gt=0.0, le=1.0)
    pause_first_seconds: Seconds = 5.0
    pause_most_seconds: Seconds = 300.0

    def conflicts(self) -> Iterator[str]:
        """Yield bounds that are out of order."""
        if self.records_min > self.window_records:
            yield "records_min is greater than window_records: the breaker would never open"
        if self.pause_first_seconds > self.pause_most_seconds:
            yield "pause_first_seconds is greater than pause_most_seconds"


class DeadLetterSettings(CleanUpSettings):
    """Say how long dead letters are kept (replayed or not), and bound the job that removes older ones."""

    keep_seconds: float = Field(default=90 * 86_400.0, ge=60, le=3_660 * 86_400)


class CouponConsumerSettings(ProcessSettings):
    """The settings of one coupon_consumer process; `COUPON_CONSUMER_KAFKA__BOOTSTRAP` is `kafka.bootstrap`.

    `start`: where a group begins that has no stored offset in any partition of the topic. A partition that is added
    later, and a topic that was made anew, are always read from their beginning, since nothing in them was seen.
    `batch_records`: how many records one transaction takes, from all partitions together.
    `try_timeout_seconds`: how long one try to store or to place may take, on a frozen server too.
    `check_seconds`: how often topic, lag and stored offsets are looked at.
    `broker_down_seconds`: for how long the brokers may be away before the process is not ready.
    """

    model_config = SettingsConfigDict(env_prefix="COUPON_CONSUMER_", env_nested_delimiter="__")

    service: ClassVar[str] = "coupon-consumer"

    postgres: PostgresSettings
    kafka: KafkaSettings
    consumer: ConsumerSettings = ConsumerSettings()
    start: Literal["earliest", "latest"] = "earliest"
    batch_records: int = Field(default=2_000, ge=1, le=100_000)
    try_timeout_seconds: Seconds = 10.0
    check_seconds: Seconds = 5.0
    broker_down_seconds: Seconds = 15.0
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    crash: CrashSettings = CrashSettings()

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions between sections."""
        yield from super().conflicts()
        if self.consumer.chunk_records > self.batch_records:
            yield "consumer chunk_records is greater than batch_records"
        stop_seconds = self.try_timeout_seconds + self.consumer.stop_seconds() + self.postgres.stop_seconds()
        if stop_seconds >= self.grace_seconds:
            yield f"grace_seconds is not greater than {stop_seconds:g}: try_timeout_seconds and closing, one by one"
        if self.try_timeout_seconds < self.postgres.statement_timeout_seconds:
            yield "try_timeout_seconds is less than the postgres statement_timeout_seconds"
        if self.check_seconds > self.broker_down_seconds:
            yield "check_seconds is greater than broker_down_seconds"
