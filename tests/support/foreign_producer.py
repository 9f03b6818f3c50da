"""Produce what confluent_kafka's producer refuses to: other clients write any bytes, so this asks librdkafka itself."""

import ctypes
from typing import Final

from confluent_kafka import cimpl

# The tags of rd_kafka_producev's arguments, and its flag to copy the value, in librdkafka's rdkafka.h.
_END, _TOPIC, _VALUE, _KEY, _FLAGS, _HEADER = (ctypes.c_int(tag) for tag in (0, 1, 4, 5, 7, 9))
_COPY: Final = ctypes.c_int(2)


def produce_with_header(bootstrap: str, topic: str, *, name: bytes, value: bytes, key: bytes) -> None:
    """Produce one record with one header, whose name may be any bytes, and wait until the broker has it."""
    library = ctypes.CDLL(cimpl.__file__)
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    said = ctypes.create_string_buffer(512)
    assert library.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), said, len(said)) == 0, said.value
    client = ctypes.c_void_p(library.rd_kafka_new(0, conf, said, len(said)))
    assert client.value, said.value
    try:
        error = library.rd_kafka_producev(
            client,
            *(_TOPIC, ctypes.c_char_p(topic.encode())),
            *(_VALUE, ctypes.c_char_p(value), ctypes.c_size_t(len(value))),
            *(_KEY, ctypes.c_char_p(key), ctypes.c_size_t(len(key))),
            *(_FLAGS, _COPY),
            *(_HEADER, ctypes.c_char_p(name), ctypes.c_char_p(b"v"), ctypes.c_ssize_t(1)),
            _END,
        )
        assert error == 0
        assert library.rd_kafka_flush(client, 10_000) == 0
    finally:
        library.rd_kafka_destroy(client)
