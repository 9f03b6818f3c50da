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
from sandbox.world import CAMPAIGNS, CONSENTS

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


class DocumentsSettings(Section):
    """Say where MongoDB is, who reads all that is audited there, and who writes consents as the members' apps do."""

    hosts: str = Field(default="127.0.0.1:27017", min_length=1)
    replica_set: str = "rs0"
    auditor: str = "auditor"
    auditor_password_file: Path
    writer: str = "consent_writer"
    writer_password_file: Path
    campaigns_database: str = CAMPAIGNS
    consents_database: str = CONSENTS

    def conflicts(self) -> Iterator[str]:
        """Yield passwords that cannot be read."""
        yield from secret_conflicts("auditor_password", None, self.auditor_password_file)
        yield from secret_conflicts("writer_password", None, self.writer_password_file)

    def auditor_url(self) -> str:
        """Return MongoDB's URL for whoever reads; the password is read now."""
        return self._url(self.auditor, self.auditor_password_file)

    def writer_url(self) -> str:
        """Return MongoDB's URL for whoever writes; the password is read now."""
        return self._url(self.writer, self.writer_password_file)

    def _url(self, user: str, password_file: Path) -> str:
        password = quote(read_secret(None, password_file) or "", safe="")
        return f"mongodb://{quote(user, safe='')}:{password}@{self.hosts}/?replicaSet={self.replica_set}"


class ControlSettings(Section):
    """Say where the Salesforce sandbox is, and what opens its control interface."""

    url: str = Field(pattern=r"^https?://[^/?#]+$")
    control_secret_file: Path | None = None

    def conflicts(self) -> Iterator[str]:
        """Yield a secret that cannot be read."""
        yield from secret_conflicts("control_secret", None, self.control_secret_file)


class MembersSettings(EnvironmentSettings):
    """The settings of `python -m sandbox.members`; `MEMBERS_POSTGRES__HOST` is `postgres.host`.

    Attributes:
        postgres: rewards and coupons.
        mongo: campaigns and consents.
        salesforce: where consents are carried to.
        token_secret_file: the secret that the services verify tokens with.
        journal: the directory in which everything is written down; it belongs to the databases and is continued.
        reward_store: where its instances are; a name stands for all addresses behind it, looked up each second.
        coupon_api: the same.
        coupon_consumer: the same; it is only watched.
        campaign_api: the same as the first two.
        consent_consumer: the same; it is only watched.
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
    mongo: DocumentsSettings
    salesforce: ControlSettings
    token_secret_file: Path
    journal: Path
    reward_store: Addresses = (Address("reward-store"),)
    coupon_api: Addresses = (Address("coupon-api"),)
    coupon_consumer: Addresses = (Address("coupon-consumer"),)
    campaign_api: Addresses = (Address("campaign-api"),)
    consent_consumer: Addresses = (Address("consent-consumer"),)
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
            Service.CAMPAIGN_API: self.campaign_api,
            Service.CONSENT_CONSUMER: self.consent_consumer,
        }
