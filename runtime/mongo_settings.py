"""What a process can be told about MongoDB."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pymongo.errors import PyMongoError
from pymongo.uri_parser import split_hosts

from runtime.settings import CommaSeparated, Seconds, Section, certificate_conflicts, secret_conflicts


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    if not hosts:
        raise ValueError("names no host")
    try:
        split_hosts(",".join(hosts))
    except (PyMongoError, ValueError):
        raise ValueError("must be host or host:port, separated by commas") from None
    return hosts


def _named(name: object) -> object:
    return None if name == "" else name  # no variable's text could say None


class MongoSettings(Section):
    """Say how to reach one database of a replica set and how much of it to use.

    The password comes as a value or as a file. MongoDB's drivers take it once for all connections; when the server
    refuses a new connection's password the file is read anew, so a rotated password needs no restart.

    Attributes:
        hosts: some or all nodes, `host:port` each; the others are found out.
        replica_set: its name; None, in a variable an empty text, talks to the one named node as it is, whatever it
            says of others.
        auth_database: where the user is defined.
        driver: `motor` needs the extra of that name to be installed.
        operation_timeout_seconds: for one operation, its retries and the wait for a primary included; also for a
            transaction as a whole.
    """

    hosts: Annotated[CommaSeparated, AfterValidator(_check_hosts)] = ("127.0.0.1:27017",)
    replica_set: Annotated[str | None, BeforeValidator(_named)] = Field(default="rs0", max_length=100)
    database: str = Field(pattern=r"^[A-Za-z0-9_-]{1,63}$")
    user: str | None = Field(default=None, min_length=1, max_length=100)
    password: SecretStr | None = None
    password_file: Path | None = None
    auth_database: str = Field(default="admin", pattern=r"^[A-Za-z0-9_-]{1,63}$")
    tls: Literal["disable", "require", "verify-full"] = "disable"
    tls_ca_file: Path | None = None
    driver: Literal["pymongo", "motor"] = "pymongo"
    pool_max: int = Field(default=20, ge=1, le=1_000)
    connect_timeout_seconds: Seconds = 5.0
    operation_timeout_seconds: Seconds = 5.0
    idle_seconds: Seconds = 300.0
    close_timeout_seconds: Seconds = 2.0

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions among the secrets and TLS, and a driver that is not installed."""
        yield from secret_conflicts("password", self.password, self.password_file)
        if (self.user is not None) != (self.password is not None or self.password_file is not None):
            yield "user and a password (or password_file) are to be given together"
        if self.tls_ca_file is not None and self.tls == "disable":
            yield "tls_ca_file is given but tls is disable"
        yield from certificate_conflicts(self.tls_ca_file)
        if self.driver == "motor" and not _is_motor_there():
            yield "driver is motor but the extra of that name is not installed"

    def stop_seconds(self) -> float:
        """Return the bound on closing the client."""
        return self.close_timeout_seconds


def _is_motor_there() -> bool:
    try:
        import motor.motor_asyncio  # noqa: F401 - an extra
    except ImportError:
        return False
    return True
