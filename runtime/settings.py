"""Settings of a process: read once from the environment, checked whole, frozen.

Each process has one class with one prefix: ``REWARD_STORE_POSTGRES__HOST`` is field ``host`` of section ``postgres`` of
the class whose prefix is ``REWARD_STORE_``. Go programs usually call ``os.Getenv`` where they need it; here nothing but
``load_settings`` looks at the environment, and whatever it finds wrong is told in one message.
"""

import os
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from runtime.environment import EnvironmentSource, load_settings

__all__ = [
    "AdminSettings",
    "AuthSettings",
    "CommaSeparated",
    "EnvironmentSettings",
    "HttpSettings",
    "KafkaSettings",
    "Port",
    "PostgresSettings",
    "ProcessSettings",
    "Seconds",
    "Section",
    "certificate_conflicts",
    "load_settings",
    "read_secret",
    "read_token_key",
    "secret_conflicts",
]

TOKEN_SECRET_BYTES_MIN: Final = 32
TOKEN_KEY_BITS_MIN: Final = 2_048

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65_535)]
"""A TCP port; 0 lets the system choose."""
FileDescriptor = Annotated[int, Field(ge=3, le=2**31 - 1)]


def _check_host(host: str) -> str:
    try:
        host.encode("idna")  # as the resolver will
    except UnicodeError:
        raise ValueError("is no host's name") from None
    return host


Host = Annotated[str, Field(min_length=1), AfterValidator(_check_host)]
"""A name or address; an empty one, which systems take for all addresses, is a variable that was left unset."""
CommaSeparated = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda v: tuple(p.strip() for p in v.split(",") if p.strip()) if isinstance(v, str) else v),
]
"""Several words in one variable, separated by commas."""


class Section(BaseModel):
    """Group settings of one concern; frozen, and no unknown field is taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def conflicts(self) -> Iterator[str]:
        """Yield each contradiction between fields as one line."""
        return iter(())

    def stop_seconds(self) -> float:
        """Return how much of the grace period this section's part of an orderly stop may need."""
        return 0.0

    @model_validator(mode="after")
    def _agree(self) -> "Section":
        _refuse(self.conflicts())
        return self


def read_secret(value: SecretStr | None, file: Path | None) -> str | None:
    """Return a secret from its value or, read anew at each call, from its file without the line end.

    Blocks for the file; on an event loop call it through ``asyncio.to_thread``.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is empty or not UTF-8.
    """
    if file is None:
        return value.get_secret_value() if value is not None else None
    secret = file.read_text("utf-8").rstrip("\r\n")
    if not secret:
        raise ValueError(f"the secret's file {file} is empty")
    return secret


def secret_conflicts(name: str, value: SecretStr | None, file: Path | None) -> Iterator[str]:
    """Yield what is wrong with a secret that may come as a value or as a file."""
    if value is not None and file is not None:
        yield f"{name} and {name}_file are both given; give one"
    if value is not None and not value.get_secret_value():
        yield f"{name} is empty"
    if file is not None:
        try:
            read_secret(None, file)
        except OSError as error:
            yield f"{name}_file cannot be read: {error.strerror}"
        except ValueError:
            yield f"{name}_file is empty or not UTF-8 text"


def read_token_key(algorithm: Literal["HS256", "RS256"], file: Path) -> str | RSAPublicKey:
    """Return what verifies tokens, whole and usable: the secret of HS256, or the public key of RS256. Blocks.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is empty, holds a secret below 32 bytes, or no RSA public key (PEM) of 2048 bits or more.
    """
    text = read_secret(None, file) or ""
    if algorithm == "HS256":
        if len(text.encode()) < TOKEN_SECRET_BYTES_MIN:
            raise ValueError(f"an HS256 secret needs at least {TOKEN_SECRET_BYTES_MIN} bytes")
        return text
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPublicKey) or key.key_size < TOKEN_KEY_BITS_MIN:
        raise ValueError(f"RS256 needs an RSA public key (PEM) of at least {TOKEN_KEY_BITS_MIN} bits")
    return key


def _refuse(conflicts: Iterator[str]) -> None:
    problems = list(conflicts)
    if problems:
        raise ValueError("\n".join(problems))


def certificate_conflicts(file: Path | None) -> Iterator[str]:
    """Yield what is wrong with a file of certificate authorities."""
    if file is not None:
        try:
            ssl.create_default_context(cafile=file)
        except OSError as error:  # of which an SSLError is one
            yield f"tls_ca_file cannot be used: {error.strerror or error}"


def _socket_conflicts(number: int | None) -> Iterator[str]:
    if number is not None:
        try:
            is_socket = stat.S_ISSOCK(os.fstat(number).st_mode)
        except OSError:
            is_socket = False
        if not is_socket:
            yield "listen_fd is the number of no inherited socket"


class AdminSettings(Section):
    """Say where liveness, readiness and metrics are served; loopback unless told otherwise.

    ``stall_seconds``: the loop not turning for that long makes liveness false.
    """

    host: Host = "127.0.0.1"
    port: Port = 9090
    listen_fd: FileDescriptor | None = None
    stall_seconds: Seconds = 30.0

    def conflicts(self) -> Iterator[str]:
        """Yield a number that is no socket's."""
        yield from _socket_conflicts(self.listen_fd)


class PostgresSettings(Section):
    """Say how to reach one Postgres database and how much of it to use.

    The password comes as a value or as a file that is read anew for each new connection.
    """

    host: Host = "127.0.0.1"
    port: Port = 5432
    database: str = Field(min_length=1, max_length=63)
    user: str = Field(min_length=1, max_length=63)
    password: SecretStr | None = None
    password_file: Path | None = None
    tls: Literal["disable", "require", "verify-full"] = "disable"
    tls_ca_file: Path | None = None
    pool_min: int = Field(default=1, ge=0, le=1_000)
    pool_max: int = Field(default=10, ge=1, le=1_000)
    waiting_max: int = Field(default=500, ge=1, le=100_000)
    connect_timeout_seconds: Seconds = 5.0
    acquire_timeout_seconds: Seconds = 2.0
    statement_timeout_seconds: Seconds = 5.0
    lock_timeout_seconds: Seconds = 3.0
    idle_in_transaction_seconds: Seconds = 10.0
    repair_timeout_seconds: Seconds = 1.0
    idle_seconds: Seconds = 300.0
    lifetime_seconds: Seconds = 3_600.0
    close_timeout_seconds: Seconds = 2.0

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions among the pool's bounds, times, secrets and TLS."""
        yield from secret_conflicts("password", self.password, self.password_file)
        if self.pool_min > self.pool_max:
            yield "pool_min is greater than pool_max"
        if self.lock_timeout_seconds > self.statement_timeout_seconds:
            yield "lock_timeout_seconds is greater than statement_timeout_seconds, which would end each wait first"
        if self.tls_ca_file is not None and self.tls == "disable":
            yield "tls_ca_file is given but tls is disable"
        yield from certificate_conflicts(self.tls_ca_file)

    def stop_seconds(self) -> float:
        """Return the bound on closing the pool."""
        return self.close_timeout_seconds


class KafkaSettings(Section):
    """Say how to reach the brokers and how much may be under way to them."""

    bootstrap: str = Field(min_length=1)
    client_id: str | None = Field(default=None, max_length=100)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = None
    tls_ca_file: Path | None = None
    queue_records: int = Field(default=20_000, ge=1, le=10_000_000)
    queue_bytes: int = Field(default=32 * 1024 * 1024, ge=1_048_576, le=2_147_483_647)
    record_bytes: int = Field(default=1_000_000, ge=1_000, le=100_000_000)
    linger_ms: int = Field(default=5, ge=0, le=10_000)
    delivery_timeout_seconds: float = Field(default=10.0, ge=0.01, le=300.0)
    check_timeout_seconds: Seconds = 2.0
    flush_timeout_seconds: Seconds = 5.0

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions among the queue's bounds and the credentials."""
        yield from secret_conflicts("sasl_password", self.sasl_password, self.sasl_password_file)
        yield from certificate_conflicts(self.tls_ca_file)
        if self.record_bytes > self.queue_bytes:
            yield "record_bytes is greater than queue_bytes: the largest record would never fit the queue"
        if self.security_protocol.startswith("SASL") != (self.sasl_mechanism is not None):
            yield "sasl_mechanism is to be given exactly when security_protocol begins with SASL"
        if self.linger_ms / 1_000 >= self.delivery_timeout_seconds:
            yield "linger_ms is not less than delivery_timeout_seconds"

    def stop_seconds(self) -> float:
        """Return the bound on flushing what is under way."""
        return self.flush_timeout_seconds


class HttpSettings(Section):
    """Say where HTTP is served, what one client may take of it, and how long a stop may last.

    Attributes:
        listen_fd: number of an inherited listening socket, instead of host and port.
        backlog: connections that may wait in the kernel to be accepted.
        drain_lag_seconds: how long a stop goes on serving, each answer saying close; also how long a connection must
            have been silent before a stop closes it.
        finish_seconds: how long, after the lag, what is in flight may take.
        request_timeout_seconds: from the whole request to the beginning of its answer; then 504.
        in_flight_max: requests at work at once; the excess gets 503 and `retry_after_seconds`.
        connections_max: open connections; one more gets 503 and is closed.
        header_timeout_seconds: for the whole header, from the connection or its first byte; then 408.
        body_timeout_seconds: for the whole body; then 408.
        write_timeout_seconds: how long a client may leave a full buffer (64 KiB) unread; then the connection is cut.
        idle_timeout_seconds: how long a keep-alive connection may be silent.
        linger_seconds: how long, after an answer that closes, the client may take to close its own half.
        target_bytes_max: of the request target; beyond it 414.
        header_bytes_max: of all header lines; beyond it, or beyond `header_count_max` of them, 431.
        body_bytes_max: of the body; beyond it 413. Bodies are held in memory: times connections_max, that is the most.
    """

    host: Host = "127.0.0.1"
    port: Port = 8080
    listen_fd: FileDescriptor | None = None
    backlog: int = Field(default=2_048, ge=1, le=65_535)
    drain_lag_seconds: float = Field(default=2.0, ge=0, le=3_600)
    finish_seconds: Seconds = 10.0
    request_timeout_seconds: Seconds = 10.0
    in_flight_max: int = Field(default=128, ge=1, le=100_000)
    retry_after_seconds: int = Field(default=1, ge=1, le=3_600)
    connections_max: int = Field(default=2_000, ge=1, le=100_000)
    header_timeout_seconds: Seconds = 10.0
    body_timeout_seconds: Seconds = 10.0
    write_timeout_seconds: Seconds = 20.0
    idle_timeout_seconds: Seconds = 75.0
    linger_seconds: Seconds = 1.0
    target_bytes_max: int = Field(default=8_192, ge=64, le=1_048_576)
    header_bytes_max: int = Field(default=16_384, ge=256, le=1_048_576)
    header_count_max: int = Field(default=64, ge=4, le=10_000)
    body_bytes_max: int = Field(default=65_536, ge=0, le=1_073_741_824)

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions among the times of a request and of a stop, and a number that is no socket's."""
        yield from _socket_conflicts(self.listen_fd)
        if self.request_timeout_seconds > self.finish_seconds:
            yield "request_timeout_seconds is greater than finish_seconds: a stop would cut off requests still in time"
        if self.in_flight_max > self.connections_max:
            yield "in_flight_max is greater than connections_max and would never be reached"

    def stop_seconds(self) -> float:
        """Return the drain's lag and the time for what is in flight after it."""
        return self.drain_lag_seconds + self.finish_seconds


class AuthSettings(Section):
    """Say how bearer tokens are verified: HS256 by a secret's file, RS256 by a public key's file."""

    algorithm: Literal["HS256", "RS256"] = "HS256"
    secret_file: Path | None = None
    public_key_file: Path | None = None
    audience: str | None = None
    issuer: str | None = None
    leeway_seconds: float = Field(default=10.0, ge=0, le=3_600)
    cache_size: int = Field(default=10_000, ge=0, le=1_000_000)

    def conflicts(self) -> Iterator[str]:
        """Yield a key that is missing, unreadable, unusable or of the other algorithm."""
        wanted, other = ("secret_file", "public_key_file")[:: 1 if self.algorithm == "HS256" else -1]
        file = getattr(self, wanted)
        if file is None:
            yield f"{wanted} is required for {self.algorithm}"
        elif unreadable := list(secret_conflicts(wanted.removesuffix("_file"), None, file)):
            yield from unreadable
        else:
            try:
                read_token_key(self.algorithm, file)
            except (OSError, ValueError) as error:
                yield f"{wanted} cannot be used: {error}"
        if getattr(self, other) is not None:
            yield f"{other} is given but {self.algorithm} does not use it"


class EnvironmentSettings(BaseSettings):
    """Settings of a process or a command, from the variables under its prefix; a mistyped one is an error."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take arguments first, then the environment, and nothing else."""
        return init_settings, EnvironmentSource(settings_cls)


class ProcessSettings(EnvironmentSettings):
    """Hold what every process needs; a process's own class adds its sections, its prefix and its service name.

    Attributes:
        service: the process's name.
        stopped_status: the exit status after an orderly stop; of a job that had more to do, perhaps another than 0.
    """

    service: ClassVar[str] = "process"
    stopped_status: ClassVar[int] = 0

    instance: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}", min_length=1, max_length=100)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = "auto"
    admin: AdminSettings = AdminSettings()
    grace_seconds: Seconds = 30.0
    startup_seconds: Seconds = 30.0

    def conflicts(self) -> Iterator[str]:
        """Yield each contradiction between sections; a subclass adds its own after these."""
        fields = ((name, getattr(self, name)) for name in type(self).model_fields)
        stops = {name: value.stop_seconds() for name, value in fields if isinstance(value, Section)}
        needed = {name: seconds for name, seconds in stops.items() if seconds > 0}
        if sum(needed.values()) >= self.grace_seconds:
            parts = " + ".join(f"{name} {seconds:g}" for name, seconds in needed.items())
            yield f"grace_seconds ({self.grace_seconds:g}) must be greater than what an orderly stop may need: {parts}"

    @model_validator(mode="after")
    def _agree(self) -> "ProcessSettings":
        _refuse(self.conflicts())
        return self
