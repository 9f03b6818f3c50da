"""The platform's databases on a test server: migrated once a session, copied for each test."""

from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from deploy.settings import MigrateSettings, Password
from sandbox.servers import PostgresServer

PASSWORDS = {role: f"{role}-secret" for role in ("lp_owner", "reward_store", "coupon_api", "coupon_consumer")}


def migrate_settings(server: PostgresServer, *, rewards: str = "rewards", coupons: str = "coupons") -> MigrateSettings:
    """Return the settings that make both databases on a test server, under the given names."""
    parts = urlsplit(server.superuser_url)
    return MigrateSettings(
        host=server.host,
        port=server.port,
        user=unquote(parts.username or "postgres"),
        password=_password(unquote(parts.password)) if parts.password else None,
        lp_owner_password=_password(PASSWORDS["lp_owner"]),
        reward_store_password=_password(PASSWORDS["reward_store"]),
        coupon_api_password=_password(PASSWORDS["coupon_api"]),
        coupon_consumer_password=_password(PASSWORDS["coupon_consumer"]),
        rewards_database=rewards,
        coupons_database=coupons,
    )


def _password(text: str) -> Password:
    return Password(value=SecretStr(text))
