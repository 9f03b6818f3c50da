"""Own one librdkafka producer and the thread that polls it for the brokers' answers."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from runtime.errors import DeliveryUnknown, RecordRefusedError
from runtime.kafka_client import DEPENDENCY, ClientConfig, is_fatal
from runtime.log_damper import LogDamper
from runtime.logs import get_logger
from runtime.settings import KafkaSettings, read_secret

_POLL_SECONDS: Final = 0.1
_JOIN_SECONDS: Final = 2.0
_REFUSALS: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG_SIZE})

# A broker that does not know or no longer takes our producer id refuses every further record. librdkafka raises the
# epoch after a record that timed out in flight; brokers other than Apache Kafka may answer that so. A new client helps.
_LOST_IDENTITY: Final = frozenset(
    {
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.UNKNOWN_PRODUCER_ID,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
    }
)

log = get_logger(__name__)


class Delivery(NamedTuple):
    """Say where the broker stored a record."""

    topic: str
    partition: int
    offset: int


Outcome = Delivery | Exception


class Publishable(Protocol):
    """What the poller needs of a record."""

    @property
    def topic(self) -> str: ...  # noqa: D102 - named by the field
    @property
    def key(self) -> bytes | None: ...  # noqa: D102 - named by the field
    @property
    def value(self) -> bytes | None: ...  # noqa: D102 - named by the field
    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]: ...  # noqa: D102 - named by the field


class Batch:
    """Collect the answers to some records; the poller's thread fills it in, the loop awaits ``answered``.

    Each count has one writer: the thread counts answers, the loop counts refusals. Whoever sees the sum complete after
    the intake was closed resolves the future, on the loop; twice is harmless.
    """

    __slots__ = ("_answers", "_is_closed", "_loop", "_outcomes", "_refusals", "answered")

    def __init__(self, records: int, loop: asyncio.AbstractEventLoop) -> None:
        self._outcomes: list[Outcome | None] = [None] * records
        self._answers = 0
        self._refusals = 0
        self._is_closed = False
        self._loop = loop
        self.answered: asyncio.Future[None] = loop.create_future()

    def answer(self, index: int, outcome: Outcome) -> bool:
        """Note an answer, in the poller's thread; True when it was the last one."""
        self._outcomes[index] = outcome
        self._answers += 1
        return self._is_complete()

    def refuse(self, index: int, error: Exception) -> None:
        """Note that a record was not sent; on the loop."""
        self._outcomes[index] = error
        self._refusals += 1

    def close_intake(self) -> None:
        """Say that every record was handed over or refused; on the loop."""
        self._is_closed = True
        if self._is_complete():
            self.resolve()

    def resolve(self) -> None:
        """Wake whoever awaits the batch; on the loop."""
        if not self.answered.done():
            self.answered.set_result(None)

    def missing(self) -> int:
        """Return how many records have no outcome yet."""
        return self._outcomes.count(None)

    def outcomes(self, default: Exception) -> list[Outcome]:
        """Return every record's outcome, the default where none came."""
        return [default if outcome is None else outcome for outcome in self._outcomes]

    def _is_complete(self) -> bool:
        return self._is_closed and self._answers + self._refusals == len(self._outcomes)


class Poller:
    """A producer and its thread. ``produce`` is for the loop's thread; answers come in the poller's own.

    Attributes:
        is_fatal: librdkafka or the broker said that this producer is of no more use.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        config: ClientConfig,
        build: Callable[[ClientConfig], Producer],
        loop: asyncio.AbstractEventLoop,
        free: Callable[[int, int], None],
    ) -> None:
        self._settings = settings
        self._loop = loop
        self._free = free
        self.is_fatal = False
        self._is_stopping = False
        self._stopped = asyncio.Event()
        self._complete: list[Batch] = []
        self._records = 0
        self._bytes = 0
        self._answered_records = 0
        self._answered_bytes = 0
        self._damper = LogDamper()
        self.producer = build({**config, "error_cb": self._note_error})  # type: ignore[dict-item] # a callback is no scalar
        self._thread = threading.Thread(target=self._run, name="kafka-poller", daemon=True)
        self._thread.start()

    def produce(self, batch: Batch, index: int, record: Publishable, size: int) -> None:
        """Queue a record; its answer goes to the batch.

        Raises:
            BufferError: librdkafka's queue is full, or this producer is at its end.
            KafkaException: it refuses the record.
        """
        if self.is_fatal or self._is_stopping:
            raise BufferError("the producer is at its end")
        self.producer.produce(
            record.topic,
            record.value,
            record.key,
            headers=list(record.headers),
            on_delivery=partial(self._answer, batch, index, size),
        )
        self._records += 1
        self._bytes += size

    def close(self) -> None:
        """Stop: unanswered records are answered as unknown; returns at once."""
        self._is_stopping = True

    async def aclose(self) -> None:
        """Stop, and wait, bounded, until the thread has ended."""
        self.close()
        try:
            async with asyncio.timeout(_JOIN_SECONDS):
                await self._stopped.wait()
        except TimeoutError:
            log.warning("The poller's thread did not end in time", dependency=DEPENDENCY)

    def _run(self) -> None:
        while not self._is_stopping and not self.is_fatal:
            self._poll(_POLL_SECONDS)
        self.producer.purge()
        self._poll(0)
        self._call(self._end)

    def _poll(self, seconds: float) -> None:
        try:
            self.producer.poll(seconds)
        except KafkaException as error:  # so the library tells of a fatal error
            self._note_error(error.args[0])
        except Exception:
            self.is_fatal = True
            log.exception("The poller failed", dependency=DEPENDENCY)
        self._hand_back()

    def _answer(self, batch: Batch, index: int, size: int, error: KafkaError | None, message: Message) -> None:
        self._answered_records += 1
        self._answered_bytes += size
        outcome: Outcome
        if error is None:
            outcome = Delivery(message.topic() or "", message.partition() or 0, message.offset() or 0)
        else:
            self.is_fatal = self.is_fatal or is_fatal(error) or error.code() in _LOST_IDENTITY
            outcome = _as_error(error)
        if batch.answer(index, outcome):
            self._complete.append(batch)

    def _hand_back(self) -> None:
        """Tell the loop about a whole round of answers in one call."""
        if self._answered_records:
            complete, self._complete = self._complete, []
            self._call(self._settle, complete, self._answered_records, self._answered_bytes)
            self._answered_records = self._answered_bytes = 0

    def _settle(self, complete: list[Batch], records: int, size: int) -> None:
        for batch in complete:
            batch.resolve()
        self._records -= records
        self._bytes -= size
        self._free(records, size)

    def _end(self) -> None:
        """Give back the room of records that slipped in after the purge and never get an answer."""
        self._free(self._records, self._bytes)
        self._records = self._bytes = 0
        self._stopped.set()

    def _call(self, fn: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(fn, *args)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._is_stopping = True

    def _note_error(self, error: KafkaError) -> None:
        """Hear of a client-wide error, in the poller's thread."""
        if is_fatal(error):
            self.is_fatal = True
        if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - how the library spells its local codes
            self._refresh_password()
        if self._damper.is_news(error.name()):
            log.warning("Kafka producer error", dependency=DEPENDENCY, error=error.name(), detail=error.str())

    def _refresh_password(self) -> None:
        """Give librdkafka the password as its file has it now: it keeps trying to connect by itself."""
        settings = self._settings
        if settings.sasl_password_file is None:
            return
        try:
            password = read_secret(None, settings.sasl_password_file) or ""
        except (OSError, ValueError) as error:
            log.warning("The password's file cannot be read", dependency=DEPENDENCY, error=type(error).__name__)
            return
        self.producer.set_sasl_credentials(settings.sasl_username or "", password)


def _as_error(error: KafkaError) -> Exception:
    if error.code() in _REFUSALS:
        return RecordRefusedError(f"{error.name()}: {error.str()}")
    return DeliveryUnknown(DEPENDENCY, f"{error.name()}: {error.str()}; the record may be stored")
