"""What `python -m deploy.mongo` must know."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from deploy.settings import Password
from runtime.mongo_settings import MongoSettings
from runtime.settings import EnvironmentSettings, Seconds, certificate_conflicts

DatabaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,63}$")]

_TLS: dict[str, Literal["disable", "require", "verify-full"]] = {
    "off": "disable",
    "required": "require",
    "verified": "verify-full",
}


class MongoSetupSettings(EnvironmentSettings):
    """Where the server is, who administers it, and the password of each role's user. Prefix `MONGO_SETUP_`.

    The prefix is not `MONGO_`: the server's image is told by variables such as `MONGO_INITDB_ROOT_USERNAME`, and a
    prefix claims every name under it. A password is, for example,
    `MONGO_SETUP_CAMPAIGN_API_PASSWORD__FILE=/run/secrets/campaign-api`.

    Attributes:
        host: of the node, which is talked to as it is, whatever it says of others.
        user: of the database `admin`; counts with `password` alone.
        password: None where the server trusts whoever comes, or has no user yet and is on this machine.
        member: `host:port` under which the node is to be a member of its replica set, and all clients find it; that of
            `host` and `port` when left out.
        timeout_seconds: for all of it, from the first try to reach the server on.
    """

    model_config = SettingsConfigDict(env_prefix="MONGO_SETUP_")

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 27017
    user: Annotated[str, Field(min_length=1, max_length=100)] = "root"
    password: Password | None = None
    tls: Literal["off", "required", "verified"] = "off"
    tls_ca_file: Path | None = None
    replica_set: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")] = "rs0"
    member: Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}$")] | None = None

    campaign_api_password: Password
    consent_consumer_password: Password
    consent_writer_password: Password
    auditor_password: Password

    campaigns_database: DatabaseName = "campaigns"
    consents_database: DatabaseName = "consents"

    connect_timeout_seconds: Seconds = 5.0
    operation_timeout_seconds: Seconds = 10.0
    timeout_seconds: Seconds = 60.0

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.tls == "off" and self.tls_ca_file is not None:
            raise ValueError("tls_ca_file is given but tls is off")
        for conflict in certificate_conflicts(self.tls_ca_file):
            raise ValueError(conflict)
        if self.operation_timeout_seconds >= self.timeout_seconds:
            raise ValueError("operation_timeout_seconds must be less than timeout_seconds")
        if self.campaigns_database == self.consents_database:
            raise ValueError("campaigns_database and consents_database must not be the same")
        if {"admin", "config", "local"} & {self.campaigns_database, self.consents_database}:
            raise ValueError("campaigns_database and consents_database must not be one of the server's own")
        return self

    @property
    def address(self) -> str:
        """Where the node is reached."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def server(self) -> MongoSettings:
        """Return how to reach the node as its administrator; the password's file is read now.

        Raises:
            OSError, ValueError: it cannot be read, or holds no password.
        """
        password = None if self.password is None else SecretStr(self.password.read())
        return MongoSettings(
            hosts=(self.address,),
            replica_set=None,
            database="admin",
            user=None if password is None else self.user,
            password=password,
            tls=_TLS[self.tls],
            tls_ca_file=self.tls_ca_file,
            pool_max=1,
            connect_timeout_seconds=self.connect_timeout_seconds,
            operation_timeout_seconds=self.operation_timeout_seconds,
        )

    def user_passwords(self) -> dict[str, str]:
        """Return each user's password; each file is read now.

        Raises:
            OSError, ValueError: one cannot be read, or holds no password.
        """
        return {
            "campaign_api": self.campaign_api_password.read(),
            "consent_consumer": self.consent_consumer_password.read(),
            "consent_writer": self.consent_writer_password.read(),
            "auditor": self.auditor_password.read(),
        }
