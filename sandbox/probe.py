"""Ask an admin port, at little cost: it is asked several times a second."""

import asyncio
from urllib.parse import urlsplit

_ANSWER_BYTES_MAX = 4 * 1024 * 1024


class ProbeFailed(Exception):  # noqa: N818 - what a probe is for, not a fault of this program
    """No whole answer came in time."""


async def probe(url: str, *, timeout_seconds: float = 1.0) -> tuple[int, str]:
    """Send a GET on a connection of its own and return status and body.

    An admin port answers one request a connection and closes, so whatever comes until then is the answer.

    Raises:
        ProbeFailed: nobody listens, or the answer is not whole after `timeout_seconds`.
    """
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(timeout_seconds):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=_ANSWER_BYTES_MAX)
            try:
                writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
                answer = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise ProbeFailed(f"{url}: {error!r}") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    fields = head.split(b" ", 2)
    if len(fields) < 2 or not fields[1].isdigit():
        raise ProbeFailed(f"{url}: the answer is not HTTP")
    return int(fields[1]), body.decode()
