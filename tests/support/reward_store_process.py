"""reward_store as a real process."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from runtime.auth import sign_token
from sandbox.servers import KafkaServer, PostgresServer
from sandbox.servers.address import free_port
from tests.support.service_process import SECRET, HttpServiceProcess, open_service, postgres_variables


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reward_store lives: its servers, its database and topic, and a directory for its files."""

    postgres: PostgresServer
    kafka: KafkaServer
    database: str
    topic: str
    directory: Path


def open_reward_store(
    place: Place, *, without: str | None = None, **settings: str
) -> AbstractAsyncContextManager[HttpServiceProcess]:
    """Start reward_store, perhaps without a guard; settings are variables without their prefix.

    It is stopped on leaving.
    """
    secret_file, token_file = place.directory / "token-secret", place.directory / "operator-token"
    secret_file.write_text(SECRET)
    token_file.write_text(sign_token("reward-store", "operator", SECRET))
    variables = {
        **postgres_variables(place.postgres, place.database, "reward_store"),
        "KAFKA__BOOTSTRAP": place.kafka.bootstrap,
        "RELAY__TOPIC": place.topic,
        "AUTH__SECRET_FILE": str(secret_file),
        "COUPON_API__URLS": "http://127.0.0.1:9",
        "COUPON_API__TOKEN_FILE": str(token_file),
        "HTTP__PORT": str(free_port()),
        "HTTP__DRAIN_LAG_SECONDS": "0.3",
        "ADMIN__PORT": str(free_port()),
        **settings,
    }
    return open_service(HttpServiceProcess, "reward_store", place.directory, variables, without=without)
