"""One bad input over HTTP, and the one answer that it must get."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from sandbox.instance import Service

CANARY: Final = "k4n4ry"
"""In every input, so that it can be looked for in answers and logs."""
HOSTILE: Final = CANARY + '\x1b[31m\x07\r\n{"event":"forged"}\u202e'
"""Text for where any text may stand: control characters, a terminal's colours, a line of its own, backwards writing."""

Caller = Literal["member", "stranger", "operator"]

REWARD_STORE: Final = Service.REWARD_STORE
COUPON_API: Final = Service.COUPON_API
CAMPAIGN_API: Final = Service.CAMPAIGN_API
APIS: Final = (REWARD_STORE, COUPON_API, CAMPAIGN_API)


@dataclass(frozen=True, slots=True)
class Call:
    """A request in its parts.

    Attributes:
        caller: whose token it bears; None for none.
        headers: more headers, as they stand on the wire.
        body: with its length announced; None for a request without one.
    """

    method: str
    target: str
    caller: Caller | None = "member"
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes | None = None

    def encode(self, tokens: Mapping[Caller, str]) -> bytes:
        """Return the bytes to send; the canary is in a header that any client may send."""
        lines = [f"{self.method} {self.target} HTTP/1.1".encode(), b"host: test", f"user-agent: {CANARY}".encode()]
        if self.caller is not None:
            lines.append(f"authorization: Bearer {tokens[self.caller]}".encode())
        lines += [name + b": " + value for name, value in self.headers]
        if self.body is not None:
            lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", self.body or b""])


@dataclass(frozen=True, slots=True)
class Row:
    """An input and its answer.

    Attributes:
        request: a call, or the very bytes for what no client library would send.
        code: of the problem; None for an answer that is none.
        errors: of a 422: each field with the rule it broke.
        headers: what the answer's headers must be, besides.
    """

    name: str
    api: Service
    request: Call | bytes
    status: int
    code: str | None
    errors: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self, tokens: Mapping[Caller, str]) -> bytes:
        """Return the bytes to send."""
        return self.request if isinstance(self.request, bytes) else self.request.encode(tokens)

    def __str__(self) -> str:
        """Name it in a test's id."""
        return f"{self.api}: {self.name}"
