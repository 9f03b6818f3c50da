"""What a client gets that meets a fault, in place of the answer."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from sandbox.salesforce.answer import HTML, Answer, Header, api_error, as_json, oauth_error
from sandbox.salesforce.exchange import Exchange
from sandbox.salesforce.fault import Endpoint, Fault, FaultKind
from sandbox.salesforce.records import record_id
from sandbox.salesforce.schema import MASTER, OBJECTS
from sandbox.salesforce.target import Target

_PAGE = b"<!DOCTYPE html><html><head><title>%b</title></head><body><h1>%b</h1></body></html>\n"
_NUMBERS_OF_NOBODY = (10**9, 10**9 + 1)
_WITHOUT_ANSWER = frozenset({FaultKind.RESET, FaultKind.HANG, FaultKind.HALF_BODY, FaultKind.WRONG_LENGTH})


def outcome_of(fault: Fault, answer: Answer) -> str:
    """Return what a call that meets the fault counts as: the fault's kind if no whole answer comes, else a status."""
    return str(fault.kind) if fault.kind in _WITHOUT_ANSWER else str(answer.status)


def answer_of(fault: Fault, target: Target, served: Answer | None) -> Answer:
    """Return the answer that the client gets, or a part of it where the connection itself goes wrong.

    Args:
        fault: one that ends its call.
        target: what the call is for.
        served: the call's own answer; None when it was not served, and the client must not take it for done.
    """
    make = _INSTEAD.get(fault.kind)
    if make is not None:
        return make(fault, target)
    answer = served or _internal(fault, target)
    if fault.kind is FaultKind.GZIP:
        headers = (*answer.headers, (b"content-encoding", b"gzip"))
        answer = Answer(answer.status, gzip.compress(answer.body), answer.media_type, headers)
    return answer


async def spoil(exchange: Exchange, fault: Fault, answer: Answer) -> None:
    """End a call as the fault says; the answer is that of `answer_of`."""
    match fault.kind:
        case FaultKind.RESET:
            exchange.reset()
        case FaultKind.HANG:
            await exchange.hang()
        case FaultKind.HALF_BODY:
            await exchange.half_body(answer)
        case FaultKind.WRONG_LENGTH:
            await exchange.wrong_length(answer)
        case _:
            await exchange.answer(answer)


def limit_exceeded() -> Answer:
    """Make the answer to a call beyond the limits; Salesforce gives no Retry-After with it."""
    return api_error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")


def _internal(_: Fault, target: Target) -> Answer:
    message = "An unexpected error occurred"
    if target.endpoint is Endpoint.TOKEN:
        return oauth_error(500, "unknown_error", message)
    return api_error(500, "UNKNOWN_EXCEPTION", message)


def _denied(fault: Fault, _: Target) -> Answer:
    if fault.status == HTTPStatus.UNAUTHORIZED:
        return oauth_error(401, "invalid_client", "invalid client credentials")
    return oauth_error(400, "invalid_grant", "authentication failure")


def _not_unique(_: Fault, target: Target) -> Answer:
    kind = OBJECTS.get(target.object_type or "", MASTER)
    ids = [record_id(kind.key_prefix, number) for number in _NUMBERS_OF_NOBODY]
    return as_json(300, [f"/services/data/v{target.version}.0/sobjects/{kind.name}/{one}" for one in ids])


def _retry_after(fault: Fault) -> tuple[Header, ...]:
    return () if fault.retry_after is None else ((b"retry-after", fault.retry_after.encode("ascii")),)


_INSTEAD: Final[Mapping[FaultKind, Callable[[Fault, Target], Answer]]] = {
    FaultKind.ERROR: _internal,
    FaultKind.LIMIT: lambda *_: limit_exceeded(),
    FaultKind.THROTTLED: lambda fault, _: api_error(
        429, "TOO_MANY_REQUESTS", "Too many requests", (), *_retry_after(fault)
    ),
    FaultKind.UNAVAILABLE: lambda fault, _: api_error(
        503, "SERVER_UNAVAILABLE", "The server is unavailable", (), *_retry_after(fault)
    ),
    FaultKind.NOT_UNIQUE: _not_unique,
    FaultKind.DENIED: _denied,
    FaultKind.BAD_GATEWAY: lambda *_: Answer(502, _PAGE % (b"Bad Gateway", b"Bad Gateway"), HTML),
    FaultKind.HTML: lambda *_: Answer(200, _PAGE % (b"Maintenance", b"We are down for maintenance."), HTML),
    FaultKind.JUNK: lambda *_: Answer(200, b'[{"id":"a00'),
}
"""What takes the place of the answer, whether the call was served or not."""
