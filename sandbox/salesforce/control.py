"""The control interface: what a demo, an audit, a test or the page may ask of the sandbox and tell it.

    GET    /control/objects                                   the objects and their fields
    GET    /control/records?object_type=&after=&limit=        records in the order of their creation
    GET    /control/records?object_type=&external_id=         the one record, or none
    GET    /control/applied?after=&limit=                     the log, by the numbers of its calls
    GET    /control/counts
    GET    /control/faults                                    what is switched on, and what can be
    POST   /control/faults                                    switch a fault on
    DELETE /control/faults, /control/faults/{id}              switch all off, or one
    DELETE /control/tokens                                    all tokens are invalid from now on
    PUT    /control/rate                                      {"calls_per_second": 5}, or null for no limit

Where the server can be reached from other machines, each request bears the control's own secret as a bearer token.
Without one it must come under the name of this machine itself, so that no web page elsewhere can send it through a
browser.
"""

from __future__ import annotations

import dataclasses
import hmac
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from sandbox.salesforce.answer import Answer, as_json
from sandbox.salesforce.counts import Counts
from sandbox.salesforce.exchange import Exchange
from sandbox.salesforce.fault import DESCRIPTIONS, PARAMETERS, Faults, SwitchedOn, read_fault
from sandbox.salesforce.rate import CallRate, check_rate
from sandbox.salesforce.records import Record, Records
from sandbox.salesforce.schema import OBJECTS
from sandbox.salesforce.tokens import Tokens

RECORDS_PER_PAGE_MAX: Final = 1_000
CALLS_PER_PAGE_MAX: Final = 1_000
BODY_BYTES_MAX: Final = 1024 * 1024
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_DIGITS_MAX = 13
_PLACES = range(10**12 + 1)
_RECORDS_PER_PAGE = (RECORDS_PER_PAGE_MAX, range(1, RECORDS_PER_PAGE_MAX + 1))
_CALLS_PER_PAGE = (CALLS_PER_PAGE_MAX, range(1, CALLS_PER_PAGE_MAX + 1))
_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class BadRequestError(ValueError):
    """A request to the control interface makes no sense; the message says why."""


class Control:
    """Serve the control interface."""

    def __init__(
        self, secret: str | None, tokens: Tokens, records: Records, faults: Faults, rate: CallRate, counts: Counts
    ) -> None:
        self._secret = secret
        self._tokens = tokens
        self._records = records
        self._faults = faults
        self._rate = rate
        self._counts = counts
        self._routes: Mapping[tuple[str, str], Callable[[Exchange], Answer]] = {
            ("GET", "objects"): self._list_objects,
            ("GET", "records"): self._list_records,
            ("GET", "applied"): self._list_applied,
            ("GET", "counts"): self._show_counts,
            ("GET", "faults"): self._list_faults,
            ("POST", "faults"): self._switch_on,
            ("DELETE", "faults"): self._clear,
            ("DELETE", "tokens"): self._revoke,
            ("PUT", "rate"): self._set_rate,
        }

    def serve(self, exchange: Exchange) -> Answer:
        """Return the answer to one request."""
        answer = self._refusal(exchange) or self._answer(exchange)
        return dataclasses.replace(answer, headers=(*answer.headers, *_HEADERS))

    def _answer(self, exchange: Exchange) -> Answer:
        name, _, number = exchange.path.removeprefix("/control/").partition("/")
        try:
            if number and (exchange.method, name) == ("DELETE", "faults"):
                return self._switch_off(number)
            serve = None if number else self._routes.get((exchange.method, name))
            if serve is None:
                return _error(404, "there is no such thing to control")
            return serve(exchange)
        except BadRequestError as error:
            return _error(400, str(error))

    def _refusal(self, exchange: Exchange) -> Answer | None:
        if self._secret is None:
            try:
                host = urlsplit(f"//{exchange.header(b'host')}").hostname
            except ValueError:
                host = None
            return None if host in _LOOPBACK_NAMES else _error(403, "the control is for this machine alone")
        scheme, _, given = exchange.header(b"authorization").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), self._secret.encode()):
            return None
        return as_json(401, {"error": "the control's secret is needed"}, (b"www-authenticate", b"Bearer"))

    def _list_objects(self, _: Exchange) -> Answer:
        objects = [
            {"name": kind.name, "fields": {name: field.kind for name, field in kind.fields.items()}}
            for kind in OBJECTS.values()
        ]
        return as_json(200, {"objects": objects})

    def _list_records(self, exchange: Exchange) -> Answer:
        query = _query(exchange, "object_type", "external_id", "after", "limit")
        kind = query.get("object_type", "")
        if kind not in OBJECTS:
            raise BadRequestError("object_type must be one of the objects")
        total = len(self._records.of(kind))
        if "external_id" in query:
            found = self._records.of(kind).get(query["external_id"])
            return as_json(200, {"total": total, "next": None, "records": [] if found is None else [_shown(found)]})
        after, limit = _number(query, "after", 0, _PLACES), _number(query, "limit", *_RECORDS_PER_PAGE)
        records = [_shown(record) for record in self._records.page(kind, after, limit)]
        following = after + len(records)
        return as_json(200, {"total": total, "next": following if following < total else None, "records": records})

    def _list_applied(self, exchange: Exchange) -> Answer:
        query = _query(exchange, "after", "limit")
        after, limit = _number(query, "after", 0, _PLACES), _number(query, "limit", *_CALLS_PER_PAGE)
        log = self._records.log
        lines = log.page(after, limit)
        following = after + len(lines)
        place = b"%d" % following if following < len(log) else b"null"
        return Answer(200, b'{"total":%d,"next":%b,"calls":[%b]}' % (len(log), place, b",".join(lines)))

    def _show_counts(self, _: Exchange) -> Answer:
        counts = self._counts
        content = {
            "token": counts.token,
            "upsert": counts.upsert,
            "query": counts.query,
            "tokens_issued": counts.tokens_issued,
            "created": counts.created,
            "updated": counts.updated,
            "refused": counts.refused,
            "records": {name: len(self._records.of(name)) for name in OBJECTS},
            "calls_per_second": self._rate.per_second,
        }
        return as_json(200, content)

    def _list_faults(self, _: Exchange) -> Answer:
        kinds = [
            {
                "kind": kind,
                "description": description,
                "parameters": [name for name, owners in PARAMETERS.items() if kind in owners],
            }
            for kind, description in DESCRIPTIONS.items()
        ]
        return as_json(200, {"faults": [_told(one) for one in self._faults], "kinds": kinds})

    def _switch_on(self, exchange: Exchange) -> Answer:
        try:
            number = self._faults.switch_on(read_fault(_json_body(exchange)))
        except ValueError as error:
            raise BadRequestError(str(error)) from error
        return as_json(201, {"id": number})

    def _switch_off(self, number: str) -> Answer:
        is_number = number.isascii() and number.isdecimal() and len(number) <= _DIGITS_MAX
        if not is_number or not self._faults.switch_off(int(number)):
            return _error(404, "no such fault is switched on")
        return as_json(200, {})

    def _clear(self, _: Exchange) -> Answer:
        self._faults.clear()
        return as_json(200, {})

    def _revoke(self, _: Exchange) -> Answer:
        self._tokens.revoke_all()
        return as_json(200, {})

    def _set_rate(self, exchange: Exchange) -> Answer:
        rate = _read_rate(_json_body(exchange))
        self._rate.per_second = rate
        return as_json(200, {})


def _error(status: int, message: str) -> Answer:
    return as_json(status, {"error": message})


def _json_body(exchange: Exchange) -> bytes:
    """Return the body of a request that no form of another web page can send.

    Raises:
        BadRequestError: it is not said to be JSON, or too long.
    """
    if not exchange.header(b"content-type").lower().startswith("application/json"):
        raise BadRequestError("the body must be application/json")
    if len(exchange.body) > BODY_BYTES_MAX:
        raise BadRequestError(f"the body must be at most {BODY_BYTES_MAX} bytes")
    return exchange.body


def _read_rate(body: bytes) -> float | None:
    try:
        content = orjson.loads(body)
        if not isinstance(content, dict) or content.keys() != {"calls_per_second"}:
            raise BadRequestError("calls_per_second must be given, and nothing else")
        rate: float | None = content["calls_per_second"]
        check_rate(rate)
    except ValueError as error:
        raise BadRequestError(str(error)) from error
    return rate


def _query(exchange: Exchange, *known: str) -> dict[str, str]:
    try:
        query = dict(parse_qsl(exchange.query.decode("ascii"), errors="strict", max_num_fields=len(known)))
    except ValueError:
        raise BadRequestError("the query is malformed") from None
    if not query.keys() <= set(known):
        raise BadRequestError(f"the query may have {', '.join(known)}")
    return query


def _number(query: Mapping[str, str], name: str, default: int, allowed: range) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX and int(text) in allowed):
        raise BadRequestError(f"{name} must be a number from {allowed[0]} to {allowed[-1]}")
    return int(text)


def _shown(record: Record) -> dict[str, object]:
    return {"id": record.id, "fields": record.fields}


def _told(one: SwitchedOn) -> dict[str, object]:
    fault = {name: value for name, value in dataclasses.asdict(one.fault).items() if value is not None}
    return {"id": one.id, "hits": one.hits, "fault": fault}
