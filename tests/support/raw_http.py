"""HTTP over a plain socket, byte by byte: what a well-behaved client library would never send."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

READ_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """One HTTP answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether it says that the connection ends with it."""
        return self.headers.get("connection", "").lower() == "close"

    @property
    def code(self) -> str:
        """The code of a problem answer."""
        assert self.headers["content-type"] == "application/problem+json", self
        code = self.json()["code"]
        assert isinstance(code, str)
        return code

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """The body, decoded."""
        return json.loads(self.body)


class RawClient:
    """One connection, used as `async with RawClient(address) as client`."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def get(self, path: str = "/ok", **headers: str) -> Answer:
        """Send one GET and read its answer; the connection stays open."""
        lines = [f"GET {path} HTTP/1.1", "host: test", *(f"{name}: {value}" for name, value in headers.items())]
        await self.send("\r\n".join([*lines, "", ""]).encode())
        return await self.answer()

    async def answer(self, *, is_head: bool = False) -> Answer:
        """Read one answer; that to a HEAD has no body, whatever its length says.

        Raises:
            asyncio.IncompleteReadError: the connection ended before it was whole.
            TimeoutError: nothing came for ten seconds.
        """
        async with asyncio.timeout(READ_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.rstrip("\r\n").split("\r\n")
            status = int(first.split(" ")[1])
            if status == 100:
                return Answer(100, {}, b"")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
            if is_head:
                return Answer(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                return Answer(status, headers, await self._chunks())
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    async def _chunks(self) -> bytes:
        chunks: list[bytes] = []
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            chunk = await self.reader.readexactly(size + 2)
            if not size:
                return b"".join(chunks)
            chunks.append(chunk[:-2])

    async def read_to_end(self) -> bytes:
        """Read until the server closes its half.

        Raises:
            ConnectionResetError: it was a reset instead.
        """
        async with asyncio.timeout(READ_SECONDS):
            return await self.reader.read()


async def ask(address: tuple[str, int], request: bytes) -> Answer:
    """Send bytes on a connection of their own and give the answer, which must be followed by the connection's end."""
    async with RawClient(address) as client:
        await client.send(request)
        answer = await client.answer()
        assert await client.read_to_end() == b""
        return answer
