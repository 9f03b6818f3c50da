"""What `python -m deploy.migrate` must know."""

import ssl
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from runtime.settings import EnvironmentSettings

DatabaseName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")]


class Password(BaseModel):
    """A password as a value, or as the path of a file whose one line it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: SecretStr | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if (self.value is None) == (self.file is None):
            raise ValueError("give either __VALUE or __FILE")
        try:
            self.read()
        except OSError as error:
            raise ValueError(f"the file cannot be read: {error.strerror}") from None
        return self

    def read(self) -> str:
        """Return the password; a file is read now, so a changed one counts at once.

        Raises:
            OSError: the file cannot be read.
            ValueError: the password is empty or not plain ASCII.
        """
        text = self.value.get_secret_value() if self.value is not None else self._from_file()
        if not text or not text.isascii() or not text.isprintable():
            raise ValueError("a password must be printable ASCII, and not empty")
        return text

    def _from_file(self) -> str:
        assert self.file is not None  # noqa: S101 - the validator saw to it
        return self.file.read_text(encoding="utf-8", errors="replace").removesuffix("\n")


class MigrateSettings(EnvironmentSettings):
    """Where the server is, who administers it, and the password of each role. Prefix `MIGRATE_`, nesting by `__`.

    A role's password is, for example, `MIGRATE_REWARD_STORE_PASSWORD__FILE=/run/secrets/reward-store`.
    """

    model_config = SettingsConfigDict(env_prefix="MIGRATE_")

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    user: str = "postgres"
    password: Password | None = None
    database: str = "postgres"
    tls: Literal["off", "required", "verified"] = "off"
    tls_ca_file: Path | None = None

    lp_owner_password: Password
    reward_store_password: Password
    coupon_api_password: Password
    coupon_consumer_password: Password
    etl_password: Password

    rewards_database: DatabaseName = "rewards"
    coupons_database: DatabaseName = "coupons"

    connect_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = 10.0
    lock_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    statement_timeout_seconds: Annotated[float, Field(gt=0, le=86_400)] = 600.0

    @model_validator(mode="after")
    def _tls_agrees(self) -> Self:
        if self.tls == "off" and self.tls_ca_file is not None:
            raise ValueError("tls_ca_file is given but tls is off")
        try:
            self.tls_context()
        except OSError as error:  # an SSLError is one
            raise ValueError(f"tls_ca_file cannot be used: {error.strerror or error}") from None
        return self

    def administrator_password(self) -> str | None:
        """Return the administrator's password; None where the server trusts without one."""
        return self.password.read() if self.password is not None else None

    def role_passwords(self) -> dict[str, str]:
        """Return each role's password, the owner's first."""
        return {
            "lp_owner": self.lp_owner_password.read(),
            "reward_store": self.reward_store_password.read(),
            "coupon_api": self.coupon_api_password.read(),
            "coupon_consumer": self.coupon_consumer_password.read(),
            "etl": self.etl_password.read(),
        }

    def tls_context(self) -> ssl.SSLContext | None:
        """Return what the connections are to be wrapped in; None when they are plain."""
        if self.tls == "off":
            return None
        context = ssl.create_default_context(cafile=self.tls_ca_file)
        if self.tls == "required":
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
