"""Open one connection to Postgres as the settings say."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from runtime.settings import PostgresSettings, read_secret

if TYPE_CHECKING:  # the class is generic for the type checker alone
    _Base = asyncpg.Connection[asyncpg.Record]
else:
    _Base = asyncpg.Connection

Row = asyncpg.Record
Connect = Callable[[], Awaitable["Connection"]]

_CLIENT_MARGIN_SECONDS: Final = 1.0
_KEEPALIVE_IDLE_SECONDS: Final = 30
_KEEPALIVE_INTERVAL_SECONDS: Final = 5
_KEEPALIVE_COUNT: Final = 3


class Connection(_Base):
    """One connection that knows whether a command of it was ever interrupted, and how old it is.

    Attributes:
        is_interrupted: a cancelled or timed-out command may still run on the server; no other may follow it yet.
        generation: the pool's generation when it was opened; an older one is expired.
        expires_at: when, on the loop's clock, it is too old to be lent again.
        idle_since: since when, on the loop's clock, it has been lying in the pool.
    """

    __slots__ = ("expires_at", "generation", "idle_since", "is_interrupted")

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the driver's own arguments
        super().__init__(*args, **kwargs)
        self.is_interrupted = False
        self.generation = 0
        self.expires_at = 0.0
        self.idle_since = 0.0

    def _cancel_current_command(self, *args: Any) -> None:  # noqa: ANN401 - the driver's own arguments
        """Note that the driver has begun to interrupt a command; it does so after a cancel and after a timeout."""
        self.is_interrupted = True
        super()._cancel_current_command(*args)  # type: ignore[misc] # left out of the stubs, called by the protocol


def build_connect(settings: PostgresSettings, *, application_name: str) -> Connect:
    """Return a function that opens a connection; it reads the password anew each time it is called.

    Every connection has server-side limits for statements, lock waits and idle transactions; the driver's own limit is
    a little longer, so that a living server answers first and a frozen one is noticed all the same.
    """
    server_settings = {
        "application_name": application_name.encode("ascii", "replace").decode()[:63],
        "statement_timeout": _milliseconds(settings.statement_timeout_seconds),
        "lock_timeout": _milliseconds(settings.lock_timeout_seconds),
        "idle_in_transaction_session_timeout": _milliseconds(settings.idle_in_transaction_seconds),
        # What a transaction sees is decided here, whatever an administrator made the database's default.
        "default_transaction_isolation": "read committed",
        "timezone": "UTC",
        "jit": "off",
        # The server's side of the same: a client that vanished without a word holds its locks no longer than this.
        "tcp_keepalives_idle": str(_KEEPALIVE_IDLE_SECONDS),
        "tcp_keepalives_interval": str(_KEEPALIVE_INTERVAL_SECONDS),
        "tcp_keepalives_count": str(_KEEPALIVE_COUNT),
    }
    tls = _build_tls(settings)

    async def password() -> str:
        if settings.password_file is None:
            return read_secret(settings.password, None) or ""
        return await asyncio.to_thread(read_secret, None, settings.password_file) or ""

    async def connect() -> Connection:
        connection = await asyncpg.connect(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            database=settings.database,
            password=password,
            ssl=tls,
            timeout=settings.connect_timeout_seconds,
            command_timeout=settings.statement_timeout_seconds + _CLIENT_MARGIN_SECONDS,
            connection_class=Connection,
            server_settings=server_settings,
            target_session_attrs=SessionAttribute.read_write,
        )
        _keep_alive(connection)
        return connection

    return connect


def _keep_alive(connection: Connection) -> None:
    """Let the system find out by itself that an idle connection's other end is gone; TCP alone never would."""
    # The driver gives no other way to its socket.
    tcp = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined] # noqa: SLF001 - as just said
    if tcp is None or tcp.family not in (socket.AF_INET, socket.AF_INET6):
        return
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", _KEEPALIVE_COUNT),
    ):
        if hasattr(socket, option):  # macOS spells the first one otherwise
            tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1_000)))


def _build_tls(settings: PostgresSettings) -> ssl.SSLContext | bool:
    if settings.tls == "disable":
        return False
    context = ssl.create_default_context(cafile=settings.tls_ca_file)
    if settings.tls == "require":
        context.check_hostname = False
        if settings.tls_ca_file is None:
            context.verify_mode = ssl.CERT_NONE
    return context
