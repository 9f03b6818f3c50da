"""librdkafka's own mock brokers, which live in this process: they keep their records, and fail as they are told to.

confluent_kafka has no way to them, so this asks the library itself, by the names in its rdkafka_mock.h.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from confluent_kafka import cimpl

OFFSET_COMMIT: Final = 8
"""The number of that request in Kafka's protocol."""

_PRODUCER: Final = 0
_BROKER: Final = ctypes.c_int32(1)


class MockBrokers:
    """One broker that is the whole cluster; see `open_mock_brokers`."""

    def __init__(self, library: ctypes.CDLL, cluster: ctypes.c_void_p) -> None:
        self._library = library
        self._cluster = cluster
        library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self.bootstrap: str = library.rd_kafka_mock_cluster_bootstraps(cluster).decode()

    def create_topic(self, name: str, *, partitions: int) -> None:
        """Create a topic."""
        assert self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1) == 0

    def fail(self, request: int, *codes: int) -> None:
        """Answer the next requests of a kind with these errors, one each."""
        errors = (ctypes.c_int(code) for code in codes)
        self._library.rd_kafka_mock_push_request_errors(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(codes)), *errors
        )

    def set_down(self) -> None:
        """Close all connections and refuse new ones."""
        assert self._library.rd_kafka_mock_broker_set_down(self._cluster, _BROKER) == 0

    def set_up(self) -> None:
        """Accept connections again."""
        assert self._library.rd_kafka_mock_broker_set_up(self._cluster, _BROKER) == 0

    def set_round_trip(self, milliseconds: int) -> None:
        """Hold every answer back for so long."""
        assert self._library.rd_kafka_mock_broker_set_rtt(self._cluster, _BROKER, milliseconds) == 0


@contextmanager
def open_mock_brokers() -> Iterator[MockBrokers]:
    """Start a cluster of one broker; it ends, with all its records, on leaving."""
    library = ctypes.CDLL(cimpl.__file__)
    for function in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, function).restype = ctypes.c_void_p
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    said = ctypes.create_string_buffer(512)
    assert library.rd_kafka_conf_set(conf, b"log_level", b"0", said, len(said)) == 0, said.value
    client = ctypes.c_void_p(library.rd_kafka_new(_PRODUCER, conf, said, len(said)))
    assert client.value, said.value
    cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(client, 1))
    try:
        yield MockBrokers(library, cluster)
    finally:
        library.rd_kafka_mock_cluster_destroy(cluster)
        library.rd_kafka_destroy(client)
