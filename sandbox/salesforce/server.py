"""The sandbox as a whole: its parts wired, and served on one socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import orjson
from starlette.types import Receive, Scope, Send

from patterns import Channel, WouldBlock
from runtime.health import Health
from runtime.http_protocol import HttpProtocol
from runtime.http_server import HttpServer
from runtime.settings import HttpSettings
from sandbox.salesforce.answer import Answer
from sandbox.salesforce.applied_log import Applied, read_call
from sandbox.salesforce.control import Control
from sandbox.salesforce.counts import Counts
from sandbox.salesforce.exchange import CONNECTION, read_exchange
from sandbox.salesforce.fault import Faults
from sandbox.salesforce.page import load_page, wrong_method
from sandbox.salesforce.rate import CallRate
from sandbox.salesforce.records import Record, Records
from sandbox.salesforce.rest import Rest, not_found
from sandbox.salesforce.settings import SalesforceSettings
from sandbox.salesforce.target import target_of
from sandbox.salesforce.tokens import Tokens

STOP_SECONDS: Final = 5.0
"""How long, in an orderly stop, the calls under way may take; a pause and a hang end with its beginning."""
_PAGE_CALLS = 100


class _Server(HttpServer):
    """The platform's own server, which lets the application have the connection, to mistreat it."""

    def _new_protocol(self) -> HttpProtocol:
        protocol = super()._new_protocol()
        protocol.app_state[CONNECTION] = protocol
        return protocol


class Salesforce:
    """The sandbox, seen from within its own process.

    Attributes:
        settings: what it was told.
        faults: what is to go wrong; switched on and off at any time.
        counts: what it was asked, and what it did.
        rate: the limit on calls a second.
        tokens: the valid ones; `tokens.revoke_all()` lets them all expire.
    """

    def __init__(self, settings: SalesforceSettings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.counts = Counts()
        self.rate = CallRate(settings.calls_per_second)
        self.tokens = Tokens(settings.token_seconds, asyncio.get_running_loop().time)
        self._records = Records(settings.log, records_max=settings.records_max, log_bytes_max=settings.log_bytes_max)
        self._rest = Rest(settings.app, self.tokens, self._records, self.faults, self.rate, self.counts)
        self._control = Control(
            settings.control_secret, self.tokens, self._records, self.faults, self.rate, self.counts
        )
        self._page = load_page()
        self._server = _Server(self._serve, _http_settings(settings), Health())

    @property
    def url(self) -> str:
        """Where it is reached, without a slash at the end."""
        host, port = self._server.address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def records(self, object_type: str) -> Mapping[str, Record]:
        """Return the records of an object by external id, a view.

        Raises:
            KeyError: there is no such object.
        """
        return self._records.of(object_type)

    def applied(self) -> Iterator[Applied]:
        """Yield what was applied, in order, from the log; also what an earlier process applied."""
        log = self._records.log
        after = 0
        while lines := log.page(after, _PAGE_CALLS):
            for line in lines:
                yield from read_call(orjson.loads(line))
            after += len(lines)

    def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: the address cannot be had.
        """
        errors: Channel[BaseException] = Channel(1)
        self._server.start(errors)
        try:
            error = errors.receive_nowait()
        except WouldBlock:
            return
        raise error

    async def drain(self) -> None:
        """Stop in order: no new call is taken, and those under way are served to their end.

        Raises:
            WorkCutOffError: some took longer than 5 s, and were cut off.
        """
        await self._server.drain()

    async def aclose(self) -> None:
        """Cut what is left, and let go of the socket and the log. Idempotent."""
        self._server.close()
        await self._server.wait_closed()
        self._records.close()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = await read_exchange(scope, receive, send)
        target = target_of(exchange.path)
        if target is not None:
            await self._rest.serve(exchange, target)
        elif exchange.path.startswith("/control/"):
            await exchange.answer(self._control.serve(exchange))
        else:
            await exchange.answer(self._look(exchange.method, exchange.path))

    def _look(self, method: str, path: str) -> Answer:
        page = self._page.get(path)
        if page is None:
            return not_found()
        return page if method in ("GET", "HEAD") else wrong_method()


def _http_settings(settings: SalesforceSettings) -> HttpSettings:
    return HttpSettings(
        host=settings.host,
        port=settings.port,
        body_bytes_max=settings.body_bytes_max,
        drain_lag_seconds=0,
        finish_seconds=STOP_SECONDS,
        request_timeout_seconds=STOP_SECONDS,
        linger_seconds=0.2,
    )


@asynccontextmanager
async def open_salesforce(settings: SalesforceSettings) -> AsyncIterator[Salesforce]:
    """Serve the sandbox in this event loop; it listens from the first line of the block on.

    Leaving cuts whatever is under way, as a kill would; `Salesforce.drain` is the way that does not.

    Raises:
        OSError: the address cannot be had.
        AppliedLogError: the log cannot be used.
    """
    salesforce = Salesforce(settings)
    try:
        salesforce.start()
        yield salesforce
    finally:
        await salesforce.aclose()
