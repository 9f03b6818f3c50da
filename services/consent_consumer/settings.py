"""What consent_consumer can be told from outside."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.clean_up import CleanUpSettings
from runtime.crash_point import CrashSettings
from runtime.mongo_settings import MongoSettings
from runtime.settings import ProcessSettings, Seconds, Section
from services.consent_consumer.salesforce_settings import SalesforceSettings


class LeaseSettings(Section):
    """Say how long the lease lasts without a renewal, which is how long a second instance waits after a death.

    Attributes:
        seconds: from a renewal on, by the database's clock.
        renew_seconds: between two renewals; a third of `seconds`, unless it is given.
        poll_seconds: between two questions of an instance that waits, and between two tries of a renewal that had no
            answer; of that a random half to whole.
    """

    seconds: float = Field(default=30.0, ge=0.1, le=3_600.0)
    renew_seconds: Seconds = Field(default_factory=lambda given: given.get("seconds", 30.0) / 3)
    poll_seconds: Seconds = 2.0

    def conflicts(self) -> Iterator[str]:
        """Yield times that are out of order."""
        if self.renew_seconds > self.seconds / 2:
            yield "renew_seconds is greater than half of seconds: a renewal that fails would have no second try"


class RetrySettings(Section):
    """Bound the tries of a record, and spread those of everything else: a random half to whole of a time that doubles.

    Attributes:
        first_seconds, most_seconds: the wait after the first failure in a row, and the longest.
        later_tries: of a record that Salesforce would take later (its row was locked, its master is missing), before
            it is a dead letter.
        unknown_tries: of a record that was refused for a reason we do not know, before it is a dead letter.
    """

    first_seconds: float = Field(default=1.0, ge=0.01, le=60.0)
    most_seconds: float = Field(default=30.0, ge=0.01, le=3_600.0)
    later_tries: int = Field(default=10, ge=1, le=1_000)
    unknown_tries: int = Field(default=3, ge=1, le=1_000)

    def conflicts(self) -> Iterator[str]:
        """Yield times that are out of order."""
        if self.first_seconds > self.most_seconds:
            yield "first_seconds is greater than most_seconds"


class DeadLetterSettings(CleanUpSettings):
    """Say how long dead letters are kept, bound the job that removes older ones, and bound a replay.

    `claim_seconds`: how long a letter is one operator's alone while it is replayed.
    """

    keep_seconds: float = Field(default=90 * 86_400.0, ge=60, le=3_660 * 86_400)
    claim_seconds: Seconds = 300.0


class ConsentConsumerSettings(ProcessSettings):
    """The settings of one consent_consumer process; `CONSENT_CONSUMER_MONGO__HOSTS` is `mongo.hosts`.

    Attributes:
        start: where a stream begins that has no position: with the changes from now on, or with a reading of the
            whole collection. There is no default, since either is wrong for somebody.
        on_lost_token: what a stream does when its changes are gone from the oplog: end the process with the position
            kept, or read the whole collection anew. To leave changes out is an operator's command, no setting.
        batch_events: how many events one call of Salesforce takes.
        calls_max: how many calls of one stream are under way at once; those with changes of one document never are.
        in_flight_max: how many events of a stream may be read and not settled, and how many settled and not saved: both
            are read again after a death.
        resync_documents: how many documents of a collection are read at once.
        save_seconds: between two saves of a position.
        check_seconds: between two looks at the database, the oplog and the dead letters.
    """

    model_config = SettingsConfigDict(env_prefix="CONSENT_CONSUMER_", env_nested_delimiter="__")

    service: ClassVar[str] = "consent-consumer"

    mongo: MongoSettings
    salesforce: SalesforceSettings
    start: Literal["now", "resync"]
    on_lost_token: Literal["fail", "resync"] = "fail"  # noqa: S105 - a resume token, no secret
    batch_events: int = Field(default=200, ge=1, le=200)
    calls_max: int = Field(default=1, ge=1, le=16)
    in_flight_max: int = Field(default=2_000, ge=1, le=100_000)
    resync_documents: int = Field(default=1_000, ge=1, le=10_000)
    save_seconds: Seconds = 1.0
    check_seconds: Seconds = 5.0
    lease: LeaseSettings = LeaseSettings()
    retry: RetrySettings = RetrySettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    crash: CrashSettings = CrashSettings()

    @property
    def answer_events(self) -> int:
        """How many events one answer of the server holds at most: it has a price of its own, which they share."""
        return max(self.batch_events, self.in_flight_max // 2)

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions between sections."""
        yield from super().conflicts()
        if self.in_flight_max < self.batch_events:
            yield "in_flight_max is less than batch_events: a full call could never be made"
        operation = self.mongo.operation_timeout_seconds
        if self.lease.renew_seconds + 2 * operation >= self.lease.seconds:
            yield (
                "lease seconds must be greater than its renew_seconds and twice the mongo operation_timeout_seconds:"
                " a renewal that had no answer needs the time of another"
            )
        # A stop waits for the calls in hand and buries what they refused, while the reader ends its last question and
        # closes its stream; it saves both positions at once, and then gives the lease back.
        calls_seconds = max(self.salesforce.timeout_seconds, operation)
        stop_seconds = calls_seconds + 3 * operation + self.mongo.stop_seconds()
        if stop_seconds >= self.grace_seconds:
            yield (
                f"grace_seconds is not greater than {stop_seconds:g}: the salesforce timeout_seconds, burying dead"
                " letters, saving, giving the lease back, and closing, one after the other"
            )
