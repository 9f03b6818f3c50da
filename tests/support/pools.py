"""Settings of a pool on a database that a test got as a URL."""

from typing import Any
from urllib.parse import unquote, urlsplit

from runtime.settings import PostgresSettings


def pool_settings(url: str, **changes: Any) -> PostgresSettings:  # noqa: ANN401 - any field of the settings
    """Return settings for a small pool with short times."""
    parts = urlsplit(url)
    fields: dict[str, Any] = {  # Any: any field of the settings
        "host": parts.hostname,
        "port": parts.port,
        "database": parts.path.lstrip("/"),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "pool_max": 2,
        "pool_min": 0,
        "close_timeout_seconds": 1.0,
    }
    return PostgresSettings(**{**fields, **changes})
