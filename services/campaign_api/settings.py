"""What campaign_api can be told from outside."""

from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.crash_point import CrashSettings
from runtime.mongo_settings import MongoSettings
from runtime.settings import AuthSettings, HttpSettings, ProcessSettings


class CampaignApiSettings(ProcessSettings):
    """The settings of one campaign_api process; `CAMPAIGN_API_MONGO__HOSTS` is `mongo.hosts`.

    `keep_keys_seconds`: how long an idempotency key's answer is kept. A new value holds for new keys.
    """

    model_config = SettingsConfigDict(env_prefix="CAMPAIGN_API_", env_nested_delimiter="__")

    service: ClassVar[str] = "campaign-api"

    mongo: MongoSettings
    auth: AuthSettings
    http: HttpSettings = HttpSettings()
    keep_keys_seconds: float = Field(default=7 * 86_400.0, ge=60, le=366 * 86_400)
    crash: CrashSettings = CrashSettings()
