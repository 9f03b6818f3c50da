"""A small HTTP/1.1 client for the members: at a fifth of a general client's cost, it hardly disturbs what it watches.

A general client's pool looks at all its connections for each request; with hundreds under way after a stall that costs
more than the requests, and the traffic never recovers.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

_HEAD_BYTES_MAX = 65_536
_IDLE_MAX = 1_000
_BODILESS = frozenset({204, 304})  # whatever length they state (RFC 9112, section 6.3)


@dataclass(frozen=True, slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def is_usable(self) -> bool:
        """Whether the other side has neither closed it nor said anything that nobody asked for."""
        return not (self.reader.at_eof() or self.writer.is_closing())


class HttpClient:
    """Send requests on connections that are kept alive, the most recently used one first.

    It reads answers with a length, which is all that the services give. A connection that the other side closed while
    it was idle is not used; one that breaks after the request was written fails the request, and nothing is sent again.
    """

    def __init__(self) -> None:
        self._idle: defaultdict[str, list[_Connection]] = defaultdict(list)

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
        lines = [f"{method} {target} HTTP/1.1", f"host: {parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if content is not None or method == "POST":
            lines.append(f"content-length: {len(content or b'')}")
        async with asyncio.timeout(timeout):
            connection = await self._connect(parts.netloc, str(parts.hostname), parts.port or 80)
            try:
                connection.writer.write("\r\n".join([*lines, "", ""]).encode() + (content or b""))
                response = await _read(connection.reader)
            except BaseException as error:
                connection.writer.transport.abort()
                if isinstance(error, (OSError, EOFError, ValueError)) and not isinstance(error, TimeoutError):
                    raise httpx.ReadError(f"{error}") from error
                raise
        idle = self._idle[parts.netloc]
        if response.headers.get("connection", "").lower() == "close" or len(idle) >= _IDLE_MAX:
            connection.writer.close()
        else:
            idle.append(connection)
        return response

    async def aclose(self) -> None:
        """Close all idle connections."""
        connections = [connection for idle in self._idle.values() for connection in idle]
        self._idle.clear()
        for connection in connections:
            connection.writer.close()
        await asyncio.gather(*(connection.writer.wait_closed() for connection in connections), return_exceptions=True)

    async def _connect(self, address: str, host: str, port: int) -> _Connection:
        idle = self._idle[address]
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                return connection
            connection.writer.close()
        try:
            return _Connection(*await asyncio.open_connection(host, port, limit=_HEAD_BYTES_MAX))
        except TimeoutError:
            raise
        except OSError as error:
            raise httpx.ConnectError(f"{error}") from error


async def _read(reader: asyncio.StreamReader) -> httpx.Response:
    """Read one answer.

    Raises:
        EOFError, ValueError: it is cut off, or no HTTP with a length.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise ValueError(f"the head of the answer is longer than {_HEAD_BYTES_MAX} bytes") from error
    status_line, *lines = head[:-4].split(b"\r\n")
    headers = [(name.strip(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    status = int(status_line.split(b" ", 2)[1])
    length = next((value for name, value in headers if name.lower() == b"content-length"), None)
    if length is None and status not in _BODILESS:
        raise ValueError("the answer has no content-length")
    body = b"" if status in _BODILESS else await reader.readexactly(int(length or 0))
    return httpx.Response(status, headers=headers, content=body)
