"""What the members can be told from outside."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import quote

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import SettingsConfigDict

from runtime.settings import AdminSettings, EnvironmentSettings, Port, Seconds, Section, read_secret, secret_conflicts
from sandbox.instance import Service

_HTTP_PORT = 8080
_ADMIN_PORT = 9090


@dataclass(frozen=True, slots=True)
class Address:
    """A host's name or address, and the ports on which each instance behind it serves."""

    host: str
    http_port: int = _HTTP_PORT
    admin_port: int = _ADMIN_PORT

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host[:http_port[:admin_port]]`.

        Raises:
            ValueError: it is not that.
        """
        host, *ports = text.strip().split(":")
        if not host or len(ports) > 2 or not all(port.isdecimal() and 0 < int(port) < 65_536 for port in ports):
            raise ValueError("an address is host[:http_port[:admin_port]]")
        return cls(host, *map(int, ports))


def _addresses(value: object) -> object:
    return tuple(Address.parse(part) for part in value.split(",")) if isinstance(value, str) else value


Addresses = Annotated[tuple[Address, ...], Field(min_length=1), BeforeValidator(_addresses)]
"""Addresses in one variable, separated by commas."""


class DatabasesSettings(Section):
    """Say where both databases are and who reads them: a role that owns the tables, but no superuser."""

    host: str
    port: Port = 5432
    user: str = "lp_owner"
    password_file: Path
    rewards_database: str = "rewards"
    coupons_database: str = "coupons"

    def conflicts(self) -> Iterator[str]:
        """Yield a password that cannot be read."""
        yield from secret_conflicts("password", None, self.password_file)

    def url(self, database: str) -> str:
        """Return the URL of one of the databases; its password is read now."""
        password = quote(read_secret(None, self.password_file) or "", safe="")
        return f"postgresql://{quote(self.user, safe='')}:{password}@{self.host}:{self.port}/{database}"


class MembersSettings(EnvironmentSettings):
    """The settings of `python -m sandbox.members`; `MEMBERS_POSTGRES__HOST` is `postgres.host`.

    Attributes:
        postgres: both databases.
        token_secret_file: the secret that the services verify tokens with.
        journal: the directory in which everything is written down; it belongs to the databases and is continued.
        reward_store: where its instances are; a name stands for all addresses behind it, looked up each second.
        coupon_api: the same.
        coupon_consumer: the same; it is only watched.
        rate: requests a second on average.
        requests_max: how many requests are written down, over all runs: the audit holds all of them in memory.
        failures_allowed: whether a request that got no answer, or a wrong one, is only counted.
        admin: liveness, readiness and metrics.
        startup_seconds: how long databases and services may take until they answer.
        drain_seconds: how long what is on its way may take to arrive when the traffic has ended.
        grace_seconds: how long the whole stop may take.
    """

    model_config = SettingsConfigDict(env_prefix="MEMBERS_", env_nested_delimiter="__")

    postgres: DatabasesSettings
    token_secret_file: Path
    journal: Path
    reward_store: Addresses = (Address("reward-store"),)
    coupon_api: Addresses = (Address("coupon-api"),)
    coupon_consumer: Addresses = (Address("coupon-consumer"),)
    rate: float = Field(default=10.0, gt=0, le=1_000)
    requests_max: int = Field(default=100_000, ge=1, le=10_000_000)
    failures_allowed: bool = False
    admin: AdminSettings = AdminSettings()
    startup_seconds: Seconds = 60.0
    drain_seconds: Seconds = 60.0
    grace_seconds: Seconds = 110.0

    @model_validator(mode="after")
    def _agree(self) -> Self:
        problems = list(secret_conflicts("token_secret", None, self.token_secret_file))
        if self.drain_seconds >= self.grace_seconds:
            problems.append("drain_seconds is not less than grace_seconds")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def addresses(self) -> dict[Service, tuple[Address, ...]]:
        """Return where the instances of each service are."""
        return {
            Service.REWARD_STORE: self.reward_store,
            Service.COUPON_API: self.coupon_api,
            Service.COUPON_CONSUMER: self.coupon_consumer,
        }
