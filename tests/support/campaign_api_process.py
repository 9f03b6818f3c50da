"""campaign_api as a real process."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from runtime.mongo_settings import MongoSettings
from runtime.settings import read_secret
from sandbox.servers.address import free_port
from tests.support.service_process import SECRET, HttpServiceProcess, open_service


def mongo_variables(settings: MongoSettings) -> dict[str, str]:
    """Return how a service reaches a database of MongoDB, as variables without their prefix."""
    return {
        "MONGO__HOSTS": ",".join(settings.hosts),
        "MONGO__REPLICA_SET": settings.replica_set or "",
        "MONGO__DATABASE": settings.database,
        "MONGO__USER": settings.user or "",
        "MONGO__PASSWORD": read_secret(settings.password, settings.password_file) or "",
        "MONGO__DRIVER": settings.driver,
    }


def open_campaign_api(
    mongo: MongoSettings, directory: Path, *, without: str | None = None, **settings: str
) -> AbstractAsyncContextManager[HttpServiceProcess]:
    """Start campaign_api, perhaps without a guard; settings are variables without their prefix.

    It is stopped on leaving.
    """
    secret_file = directory / "token-secret"
    secret_file.write_text(SECRET)
    variables = {
        **mongo_variables(mongo),
        "AUTH__SECRET_FILE": str(secret_file),
        "HTTP__PORT": str(free_port()),
        "HTTP__DRAIN_LAG_SECONDS": "0.3",
        "ADMIN__PORT": str(free_port()),
        **settings,
    }
    return open_service(HttpServiceProcess, "campaign_api", directory, variables, without=without)
