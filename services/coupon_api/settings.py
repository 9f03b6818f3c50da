"""What coupon_api can be told from outside."""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.clean_up import CleanUpSettings
from runtime.crash_point import CrashSettings
from runtime.settings import AuthSettings, HttpSettings, PostgresSettings, ProcessSettings

STARTUP_SECONDS_MAX = 30.0


class IdempotencySettings(CleanUpSettings):
    """Say how long idempotency keys are kept, and bound the job that removes older ones."""

    keep_seconds: float = Field(default=7 * 86_400.0, ge=60, le=366 * 86_400)


class CouponApiSettings(ProcessSettings):
    """The settings of one coupon_api process; `COUPON_API_POSTGRES__HOST` is `postgres.host`."""

    model_config = SettingsConfigDict(env_prefix="COUPON_API_", env_nested_delimiter="__")

    service: ClassVar[str] = "coupon-api"

    postgres: PostgresSettings
    auth: AuthSettings
    http: HttpSettings = HttpSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    crash: CrashSettings = CrashSettings()
    trace_capacity: int = Field(default=1_024, ge=1, le=1_000_000)

    def conflicts(self) -> Iterator[str]:
        """Yield contradictions between sections, and a wait for the database beyond the one the service promises."""
        yield from super().conflicts()
        if self.startup_seconds > STARTUP_SECONDS_MAX:
            yield f"startup_seconds is greater than {STARTUP_SECONDS_MAX:g}, the longest wait for the database"
