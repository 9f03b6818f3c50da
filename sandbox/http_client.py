"""The members' HTTP client: it hardly disturbs what it watches, and hides no loss by sending a request again.

A general client's pool looks at all its connections for each request; with hundreds under way after a stall that costs
more than the requests, and the traffic never recovers.
"""

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import httpx

from runtime.http_client import HttpClient as ServerClient
from runtime.http_connection import HttpConnectError, HttpExchangeError

_CONNECTIONS_MAX: Final = 10_000
_CONNECT_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 300.0
_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024


class HttpClient:
    """Send requests to any server, in the words of httpx, by one client of `runtime.http_client` for each of them."""

    def __init__(self) -> None:
        self._servers: dict[str, ServerClient] = {}

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        timeout: float | None = None,
    ) -> httpx.Response:
        """Send one request and return its whole answer.

        A cancelled or timed-out request closes its connection, so that no later one reads its answer.

        Raises:
            httpx.ConnectError: no connection was made; nothing was sent.
            httpx.ReadError: the connection broke, or what came is no answer.
            TimeoutError: it is not there after `timeout` seconds.
        """
        parts = urlsplit(url)
        target = f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"
        if content is None and method == "POST":
            content = b""
        server = self._client_of(f"{parts.scheme}://{parts.netloc}")
        try:
            async with asyncio.timeout(timeout):
                answer = await server.send(method, target, headers=headers, content=content)
        except HttpConnectError as error:
            raise httpx.ConnectError(str(error)) from error
        except HttpExchangeError as error:
            raise httpx.ReadError(str(error)) from error
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)

    async def aclose(self) -> None:
        """Close all connections that are not in use."""
        for server in self._servers.values():
            await server.aclose()

    def _client_of(self, url: str) -> ServerClient:
        if url not in self._servers:
            self._servers[url] = ServerClient(
                url,
                tls=None,
                connections_max=_CONNECTIONS_MAX,
                connect_seconds=_CONNECT_SECONDS,
                idle_seconds=_IDLE_SECONDS,
                answer_bytes_max=_ANSWER_BYTES_MAX,
            )
        return self._servers[url]
