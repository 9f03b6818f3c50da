"""What reward_store can be told from outside."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.clean_up import CleanUpSettings
from runtime.crash_point import CrashSettings
from runtime.settings import (
    AuthSettings,
    CommaSeparated,
    HttpSettings,
    KafkaSettings,
    PostgresSettings,
    ProcessSettings,
    Seconds,
    Section,
    secret_conflicts,
)


class RelaySettings(Section):
    """Say how the outbox is published.

    A relay claims at most `batch_rows` rows for `lease_seconds`, and looks again at once after a full batch or when
    this process redeemed something, else after `poll_interval_seconds` (which is how soon it sees what others left).
    After a failure it waits from `backoff_first_seconds` up to `backoff_most_seconds`. A row that the broker will never
    take is tried again after as long as it has waited already, at most `refused_most_seconds`. When it is told to stop
    it has `finish_seconds` for the batch in hand. `measure_interval_seconds`: how often the backlog is counted.
    """

    topic: str = Field(default="coupon-events", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    batch_rows: int = Field(default=500, ge=1, le=10_000)
    lease_seconds: Seconds = 30.0
    poll_interval_seconds: Seconds = 0.5
    backoff_first_seconds: Seconds = 0.5
    backoff_most_seconds: Seconds = 10.0
    refused_most_seconds: Seconds = 900.0
    finish_seconds: Seconds = 3.0
    measure_interval_seconds: Seconds = 2.0

    def conflicts(self) -> Iterator[str]:
        """Yield a wait whose first step is above its cap."""
        if self.backoff_first_seconds > self.backoff_most_seconds:
            yield "backoff_first_seconds is greater than backoff_most_seconds"
        if self.lease_seconds > self.refused_most_seconds:
            yield "lease_seconds is greater than refused_most_seconds"

    def stop_seconds(self) -> float:
        """Return the time for the batch in hand."""
        return self.finish_seconds


class CouponApiSettings(Section):
    """Say how coupon_api is asked to cancel a coupon.

    `urls` are tried in order, the next one only when a connection is refused. `token_file` holds an operator's token
    and is read anew for each request. One request may take `timeout_seconds`, all its tries together.
    """

    urls: CommaSeparated = Field(min_length=1)
    token_file: Path
    timeout_seconds: Seconds = 3.0
    connections_max: int = Field(default=10, ge=1, le=1_000)

    def conflicts(self) -> Iterator[str]:
        """Yield an address that is no base URL, or a token that cannot be read."""
        if not all(url.startswith(("http://", "https://")) for url in self.urls):
            yield "urls must each begin with http:// or https://"
        yield from secret_conflicts("token", None, self.token_file)


class CancelSettings(Section):
    """Say how cancellations that were left unfinished are taken up again.

    A cancellation belongs to the request that began it for `lease_seconds`. Every `interval_seconds` at most
    `batch_rows` abandoned ones are taken over, `concurrency` at a time. One that coupon_api rejects, which somebody has
    to mend, is tried again after as long as it has lasted already, at most `rejected_most_seconds`.
    """

    lease_seconds: Seconds = 15.0
    rejected_most_seconds: Seconds = 900.0
    interval_seconds: Seconds = 5.0
    batch_rows: int = Field(default=50, ge=1, le=10_000)
    concurrency: int = Field(default=4, ge=1, le=1_000)

    def conflicts(self) -> Iterator[str]:
        """Yield a wait whose first step is above its cap."""
        if self.lease_seconds > self.rejected_most_seconds:
            yield "lease_seconds is greater than rejected_most_seconds"


class RetentionSettings(CleanUpSettings):
    """Say how long published outbox rows and idempotency keys are kept, and bound the job that removes older ones."""

    keep_outbox_seconds: float = Field(default=86_400.0, ge=60, le=366 * 86_400)
    keep_keys_seconds: float = Field(default=7 * 86_400.0, ge=60, le=366 * 86_400)


class RewardStoreSettings(ProcessSettings):
    """The settings of one reward_store process; `REWARD_STORE_POSTGRES__HOST` is `postgres.host`."""

    model_config = SettingsConfigDict(env_prefix="REWARD_STORE_", env_nested_delimiter="__")

    service: ClassVar[str] = "reward-store"

    postgres: PostgresSettings
    kafka: KafkaSettings
    auth: AuthSettings
    coupon_api: CouponApiSettings
    http: HttpSettings = HttpSettings()
    relay: RelaySettings = RelaySettings()
    cancel: CancelSettings = CancelSettings()
    clean_up: RetentionSettings = RetentionSettings()
    crash: CrashSettings = CrashSettings()

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions between sections."""
        yield from super().conflicts()
        statement = self.postgres.acquire_timeout_seconds + self.postgres.statement_timeout_seconds
        if self.relay.lease_seconds <= self.kafka.delivery_timeout_seconds + statement:
            yield (
                "relay.lease_seconds must be greater than kafka.delivery_timeout_seconds and the time of one statement "
                "together: a lease has to outlive the broker's word and the mark after it"
            )
        if self.relay.batch_rows > self.kafka.queue_records:
            yield "relay.batch_rows is greater than kafka.queue_records: a batch would wait for its own answers"
        if self.cancel.lease_seconds <= self.coupon_api.timeout_seconds + statement:
            yield (
                "cancel.lease_seconds must be greater than coupon_api.timeout_seconds and the time of one statement "
                "together: a cancellation in progress would be taken over"
            )
