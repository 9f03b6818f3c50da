"""Ask and tell the brokers as an administrator, without librdkafka's own lines on standard error."""

from collections import deque
from typing import Any, Final

from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from runtime.kafka_client import ClientConfig

_NO_CONNECTION: Final = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})  # noqa: SLF001 - the client's names for its local errors begin so


class KafkaAdmin:
    """An admin client that writes nothing by itself.

    librdkafka writes a line for each failed connection, some 37 a second while brokers are away, past our logs. Errors
    come back in the client's futures anyway; why a connection failed is in `reason`.

    Attributes:
        client: for the calls; keep this object while their futures run.
    """

    def __init__(self, client_settings: ClientConfig) -> None:
        self._said: deque[str] = deque(maxlen=1)
        said = self._said  # no reference to self: the client, which has the callback, ends when this object does

        def note(error: KafkaError) -> None:
            if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - as above; it follows the reasons
                said.append(error.str())

        config: dict[str, Any] = {**client_settings, "log_level": 0, "error_cb": note}  # Any: numbers, texts, callbacks
        self.client = AdminClient(config)

    def reason(self) -> str | None:
        """Return why a connection failed last, or None. Does not wait; it also takes what the client has queued."""
        self.client.poll(0)
        return self._said[-1] if self._said else None

    def explain(self, error: KafkaError) -> str:
        """Return an error's name, with the last connection's reason where that is what the error is about."""
        reason = self.reason() if error.code() in _NO_CONNECTION else None
        return error.name() if reason is None else f"{error.name()}; {reason}"
