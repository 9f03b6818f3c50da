"""The database roles of a platform and their passwords: roles belong to a whole server, whoever else uses it."""

import base64
import hmac
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import asyncpg

from deploy.migrate import scram_verifier
from sandbox.servers import ServerError

ROLES: Final = ("lp_owner", "reward_store", "coupon_api", "coupon_consumer", "etl")
_CONNECT_SECONDS: Final = 10.0


def role_password(superuser_url: str, role: str) -> str:
    """Return the password that every run on a server gives to a role, so that no run locks another one out.

    Nobody can guess it who does not know the superuser's.
    """
    secret = unquote(urlsplit(superuser_url).password or "")
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), role.encode(), "sha256")).decode().rstrip("=")


def write_secret(path: Path, secret: str) -> None:
    """Write a secret into a file that nobody else can read."""
    path.touch(mode=0o600)
    path.write_text(secret)


async def refuse_foreign_roles(superuser_url: str) -> None:
    """Return if no role of a platform is on the server whose password is not ours: giving it ours would lock it out.

    Raises:
        ServerError: there is one.
        OSError, TimeoutError, asyncpg.PostgresError: the server does not answer, or refuses.
    """
    connection = await asyncpg.connect(superuser_url, timeout=_CONNECT_SECONDS)
    try:
        rows = await connection.fetch(
            "select rolname, rolpassword from pg_authid where rolname = any ($1::text[])", list(ROLES)
        )
    finally:
        await connection.close()
    foreign = [role for role, verifier in rows if not _is_ours(verifier, role_password(superuser_url, role))]
    if foreign:
        raise ServerError(
            f"the named PostgreSQL server has the roles of another platform ({', '.join(sorted(foreign))}):"
            " name an empty server, or drop them"
        )


def _is_ours(verifier: str | None, password: str) -> bool:
    if verifier is None or not verifier.startswith("SCRAM-SHA-256$"):
        return False
    salt = base64.b64decode(verifier.split("$")[1].partition(":")[2])
    return hmac.compare_digest(verifier, scram_verifier(password, salt))
