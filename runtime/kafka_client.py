"""What every client of the brokers is configured with: where they are, who we are, how we are let in."""

from typing import Final

from confluent_kafka import KafkaError

from runtime.settings import KafkaSettings, read_secret

DEPENDENCY: Final = "kafka"

ClientConfig = dict[str, str | int | float | bool]


def client_config(settings: KafkaSettings, *, name: str) -> ClientConfig:
    """Return librdkafka's configuration for one client; a password's file is read here, so anew for each client.

    Blocks for that file.

    Raises:
        OSError: the password's file cannot be read.
        ValueError: the password's file is empty or not UTF-8.
    """
    config: ClientConfig = {
        "bootstrap.servers": settings.bootstrap,
        "client.id": settings.client_id or name,
        "security.protocol": settings.security_protocol,
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "allow.auto.create.topics": False,
        "log_level": 4,  # warnings: below that librdkafka tells of each connection
    }
    if settings.tls_ca_file is not None:
        config["ssl.ca.location"] = str(settings.tls_ca_file)
    if settings.sasl_mechanism is not None:
        config["sasl.mechanism"] = settings.sasl_mechanism
        config["sasl.username"] = settings.sasl_username or ""
        config["sasl.password"] = read_secret(settings.sasl_password, settings.sasl_password_file) or ""
    return config


def is_fatal(error: KafkaError) -> bool:
    """Return whether an error is the end of its client; the error callback is told so by the code alone."""
    return error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - the client's names for its local errors begin so
