"""Call an ASGI application without a server."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Scope

Headers = Sequence[tuple[bytes, bytes]]


@dataclass
class Sent:
    """What an application sent."""

    messages: list[Message] = field(default_factory=list)

    async def send(self, message: Message) -> None:
        """Keep a message."""
        self.messages.append(message)

    @property
    def status(self) -> int:
        """The answer's status; 0 when there is none."""
        return int(self.messages[0]["status"]) if self.messages else 0

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers."""
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def body(self) -> bytes:
        """The answer's body so far."""
        return b"".join(message.get("body", b"") for message in self.messages[1:])

    @property
    def code(self) -> str:
        """The code of a problem answer."""
        assert self.headers["content-type"] == "application/problem+json"
        return str(json.loads(self.body)["code"])


def http_scope(method: str = "GET", path: str = "/", *, query: bytes = b"", headers: Headers = ()) -> Scope:
    """Make the scope of a request, as the server would."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": list(headers),
        "http_version": "1.1",
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }


async def call(app: ASGIApp, scope: Scope, body: bytes = b"", *, sent: Sent | None = None) -> Sent:
    """Run an application for one request and give what it sent."""
    sent = sent if sent is not None else Sent()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    await app(scope, receive, sent.send)
    return sent
