"""coupon_api as a real process."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from sandbox.servers import PostgresServer
from sandbox.servers.address import free_port
from tests.support.service_process import SECRET, HttpServiceProcess, open_service, postgres_variables


def open_coupon_api(
    server: PostgresServer, database: str, directory: Path, *, without: str | None = None, **settings: str
) -> AbstractAsyncContextManager[HttpServiceProcess]:
    """Start coupon_api, perhaps without a guard; settings are variables without their prefix.

    It is stopped on leaving.
    """
    secret_file = directory / "token-secret"
    secret_file.write_text(SECRET)
    variables = {
        **postgres_variables(server, database, "coupon_api"),
        "AUTH__SECRET_FILE": str(secret_file),
        "HTTP__PORT": str(free_port()),
        "HTTP__DRAIN_LAG_SECONDS": "0.3",
        "ADMIN__PORT": str(free_port()),
        **settings,
    }
    return open_service(HttpServiceProcess, "coupon_api", directory, variables, without=without)
