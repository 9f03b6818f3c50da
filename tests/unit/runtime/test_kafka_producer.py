"""The producer's rules with librdkafka replaced at its edge: bounds, broken clients, exact counts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from pydantic import ValidationError

from runtime.errors import DeliveryUnknown, DependencyUnavailable, RecordRefusedError
from runtime.kafka_client import ClientConfig
from runtime.kafka_producer import Delivery, KafkaProducer, Record, _producer_config
from runtime.settings import KafkaSettings
from tests.support.eventually import eventually
from tests.support.fake_producer import FakeProducer

RECORD = Record("t", b"k", b"v")


class Clients:
    """Build fake clients, each as the test prepared the next one."""

    def __init__(self) -> None:
        self.built: list[FakeProducer] = []
        self.next_answer: str | KafkaError | None = "stored"

    def build(self, config: ClientConfig) -> Producer:
        """Build one."""
        client = FakeProducer(config)
        client.answer_with = self.next_answer
        self.built.append(client)
        return cast("Producer", client)


@asynccontextmanager
async def producer_of(clients: Clients, **fields: Any) -> AsyncIterator[KafkaProducer]:  # noqa: ANN401 - any setting
    """Open a producer on fake clients for a block."""
    settings = KafkaSettings(**{"bootstrap": "x:1", "delivery_timeout_seconds": 5.0, **fields})
    producer = KafkaProducer(settings, build=clients.build)
    try:
        yield producer
    finally:
        await producer.aclose(0.05)


async def test_outcomes_come_in_the_order_of_their_records_with_one_at_fault_among_them() -> None:
    """Each record's outcome is at its index, whatever the others came to."""
    clients = Clients()
    async with producer_of(clients, record_bytes=1_000) as producer:
        records = [Record("t", b"k", value) for value in (b"0", b"x" * 2_000, b"2")]
        first, second, third = await producer.publish_many(records)
        assert first == Delivery("t", 0, 0)
        assert isinstance(second, RecordRefusedError)
        assert third == Delivery("t", 0, 1)
        statistics = producer.statistics()
    assert (statistics.delivered, statistics.failed, statistics.under_way_records) == (2, 1, 0)


async def test_the_client_is_asked_for_every_brokers_word_and_no_doubles() -> None:
    """The settings that the guarantees rest on reach librdkafka."""
    clients = Clients()
    async with producer_of(clients, linger_ms=7) as producer:
        await producer.publish(*RECORD)
    config = clients.built[0].config
    assert config["enable.idempotence"] is True
    assert config["acks"] == "all"
    assert config["linger.ms"] == 7
    assert config["message.timeout.ms"] == 5_000


async def test_failing_connections_are_told_once_in_a_while() -> None:
    """The client reports each of them, many a second: one line of ours tells of all, and none of its own."""
    clients = Clients()
    with patch("runtime.kafka_poller.log.warning") as told:
        async with producer_of(clients) as producer:
            await producer.publish(*RECORD)
            config = clients.built[0].config
            for _ in range(50):
                config["error_cb"](KafkaError(KafkaError._TRANSPORT))
    assert told.call_count == 1
    assert config["log_level"] == 2


@pytest.mark.parametrize(
    "error",
    [
        KafkaError(KafkaError.PRODUCER_FENCED),
        KafkaError(KafkaError.UNKNOWN_PRODUCER_ID),
        KafkaError(KafkaError._FATAL, "broken", True),
        KafkaError(KafkaError._FATAL, "broken"),
    ],
    ids=["fenced", "unknown id", "fatal", "fatal by its code alone"],
)
async def test_a_client_that_lost_its_identity_is_replaced_and_the_next_record_goes_through(error: KafkaError) -> None:
    """The record at hand is of unknown fate; the one after it is stored by a new client; no count is left behind."""
    clients = Clients()
    clients.next_answer = error
    async with producer_of(clients) as producer:
        with pytest.raises(DeliveryUnknown):
            await producer.publish(*RECORD)
        clients.next_answer = "stored"
        assert await producer.publish(*RECORD) == Delivery("t", 0, 0)
        assert len(clients.built) == 2
        assert clients.built[0].stored == []
        assert producer.statistics().renewed == 1
        await eventually(lambda: producer.statistics().under_way_records == 0)


@pytest.mark.parametrize("content", [None, b"", b"\xff"], ids=["missing", "empty", "not UTF-8"])
async def test_a_password_file_that_is_being_written_refuses_no_record(tmp_path: Path, content: bytes | None) -> None:
    """Nothing was sent and it is no record's fault; with the password in place the same record goes through."""
    clients = Clients()
    file = tmp_path / "password"
    file.write_text("secret\n")
    sasl = {"sasl_mechanism": "PLAIN", "sasl_username": "me", "sasl_password_file": file}
    async with producer_of(clients, security_protocol="SASL_PLAINTEXT", **sasl) as producer:
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        (outcome,) = await producer.publish_many([RECORD])
        assert isinstance(outcome, DependencyUnavailable)
        with pytest.raises(DependencyUnavailable, match="password's file cannot be read"):
            await producer.check()
        file.write_text("new\n")
        assert await producer.publish(*RECORD) == Delivery("t", 0, 0)


@pytest.mark.parametrize(
    "raised",
    [KafkaException(KafkaError(KafkaError._FATAL, "x", True)), ValueError("a callback failed")],
)
async def test_a_poll_that_raises_ends_that_client_and_never_the_service(raised: Exception) -> None:
    """Records of the broken client are answered as unknown, and the next goes through a new one."""
    clients = Clients()
    clients.next_answer = None
    async with producer_of(clients) as producer:
        publishing = asyncio.create_task(producer.publish(*RECORD))
        await eventually(lambda: producer.statistics().under_way_records == 1)
        clients.built[0].raise_in_poll = raised
        with pytest.raises(DeliveryUnknown):
            await publishing
        clients.next_answer = "stored"
        assert await producer.publish(*RECORD) == Delivery("t", 0, 0)
        assert producer.statistics().under_way_bytes == 0


async def test_the_queue_holds_no_more_records_and_bytes_than_the_settings_allow() -> None:
    """Publishers beyond the bound wait; as answers come they go on, in the order they came."""
    clients = Clients()
    clients.next_answer = None
    async with producer_of(clients, queue_records=10) as producer:
        publishing = [asyncio.create_task(producer.publish("t", b"k", b"%d" % number)) for number in range(50)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert producer.statistics().under_way_records == 10
        clients.built[0].answer_with = "stored"
        await asyncio.gather(*publishing)
    assert [value for _, _, value in clients.built[0].stored] == [b"%d" % number for number in range(50)]


async def test_a_large_record_waits_for_room_in_bytes() -> None:
    """Two records of most of the bound are never under way together."""
    clients = Clients()
    clients.next_answer = None
    big = b"x" * 600_000
    async with producer_of(clients, queue_bytes=1_048_576, record_bytes=1_000_000) as producer:
        publishing = [asyncio.create_task(producer.publish("t", b"k", big)) for _ in range(2)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert producer.statistics().under_way_records == 1
        clients.built[0].answer_with = "stored"
        await asyncio.gather(*publishing)
        assert producer.statistics().under_way_bytes == 0


async def test_a_full_librdkafka_queue_makes_a_publisher_wait_and_then_fail_as_not_sent() -> None:
    """BufferError is back-pressure, bounded by the delivery's time, and the record is not of unknown fate."""
    clients = Clients()
    clients.next_answer = None
    async with producer_of(clients, delivery_timeout_seconds=0.1, linger_ms=1) as producer:
        stuck = asyncio.create_task(producer.publish(*RECORD))
        await eventually(lambda: clients.built)
        clients.built[0].capacity = 0
        with pytest.raises(DependencyUnavailable, match="not sent") as caught:
            await producer.publish(*RECORD)
        assert not isinstance(caught.value, DeliveryUnknown)
        with pytest.raises(DeliveryUnknown):
            await stuck


async def test_a_close_answers_whoever_still_waits() -> None:
    """Records under way at the end of the close's time are of unknown fate; a later one is refused."""
    clients = Clients()
    clients.next_answer = None
    async with producer_of(clients) as producer:
        publishing = [asyncio.create_task(producer.publish(*RECORD)) for _ in range(5)]
        await eventually(lambda: producer.statistics().under_way_records == 5)
        await producer.aclose(0.05)
        ends = await asyncio.gather(*publishing, return_exceptions=True)
        assert all(isinstance(end, DeliveryUnknown) for end in ends)
        with pytest.raises(DependencyUnavailable, match="closed"):
            await producer.publish(*RECORD)
    assert clients.built[0].is_purged


async def test_no_answer_at_all_is_an_unknown_outcome_in_time() -> None:
    """Even if librdkafka forgot a record, the publisher hears a second after the delivery's time."""
    clients = Clients()
    clients.next_answer = None
    async with producer_of(clients, delivery_timeout_seconds=0.05, linger_ms=1) as producer:
        with pytest.raises(DeliveryUnknown, match="no answer in time"):
            await producer.publish(*RECORD)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"delivery_timeout_seconds": 0.01, "queue_records": 1, "queue_bytes": 1_048_576, "record_bytes": 1_000},
        {
            "delivery_timeout_seconds": 300,
            "queue_records": 10_000_000,
            "queue_bytes": 2_147_483_647,
            "linger_ms": 10_000,
        },
    ],
    ids=["as given", "least", "most"],
)
def test_real_client_takes_the_settings(fields: dict[str, float]) -> None:
    """Every number that can be set is one that the client can be built with."""
    settings = KafkaSettings.model_validate({"bootstrap": "127.0.0.1:1", **fields})
    Producer({**_producer_config(settings, "x"), "log_level": 0}).purge()


@pytest.mark.parametrize("seconds", [0.001, 300.1])
def test_what_the_client_would_refuse_is_refused_with_the_settings(seconds: float) -> None:
    """A time out of its range is told at the start, and not by a client that can never be built."""
    with pytest.raises(ValidationError, match="delivery_timeout_seconds"):
        KafkaSettings(bootstrap="x:1", delivery_timeout_seconds=seconds, linger_ms=0)
