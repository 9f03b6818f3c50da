"""The settings that the real client is built with."""

import pytest
from confluent_kafka import Consumer
from pydantic import ValidationError

from runtime.consumer_settings import ConsumerSettings
from tests.support.kafka_world import some_settings


def test_client_may_neither_commit_nor_reset_by_itself() -> None:
    """Where to read is ours to say, and the group's protocol and membership are settings."""
    classic = ConsumerSettings(group_instance_id="one").client_settings()
    assert classic["enable.auto.commit"] is False
    assert classic["enable.auto.offset.store"] is False
    assert classic["auto.offset.reset"] == "error"
    assert classic["partition.assignment.strategy"] == "cooperative-sticky"
    assert classic["group.instance.id"] == "one"
    newer = ConsumerSettings(group_protocol="consumer").client_settings()
    assert newer["group.protocol"] == "consumer"
    assert not {"partition.assignment.strategy", "session.timeout.ms"} & newer.keys()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"assignor": "range"},
        {"group_protocol": "consumer"},
        {"group_instance_id": "one"},
        {"session_timeout_seconds": 0.001, "max_poll_interval_seconds": 0.001, "revoke_wait_seconds": 0.0001},
        {"session_timeout_seconds": 3_600, "max_poll_interval_seconds": 86_400, "fetch_queue_bytes": 2_147_483_135},
    ],
    ids=["classic", "eager", "newer protocol", "static membership", "least", "most"],
)
def test_real_client_takes_the_settings(settings: dict[str, object]) -> None:
    """Every protocol and membership that can be set is one that the client knows how to be configured with."""
    client = Consumer({"bootstrap.servers": "127.0.0.1:1", "log_level": 0, **some_settings(settings).client_settings()})
    client.close()


@pytest.mark.parametrize(
    "beyond",
    [
        {"session_timeout_seconds": 0.0004},
        {"session_timeout_seconds": 3_601, "max_poll_interval_seconds": 86_400},
        {"fetch_queue_bytes": 2_147_483_136},
    ],
    ids=str,
)
def test_what_the_client_would_refuse_is_refused_with_the_settings(beyond: dict[str, object]) -> None:
    """A number out of its range is told at the start, by its name, and not by a client that cannot be built."""
    with pytest.raises(ValidationError, match=next(iter(beyond))):
        some_settings(beyond)
