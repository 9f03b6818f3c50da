"""The REST interface: the token, the upsert of a collection and of a single record, queries, each under the faults."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from hashlib import sha256
from http import HTTPStatus
from time import time
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from sandbox.salesforce.answer import Answer, api_error, as_json, oauth_error
from sandbox.salesforce.applied_log import Content
from sandbox.salesforce.counts import Counts
from sandbox.salesforce.errors import AppliedLogError
from sandbox.salesforce.exchange import Exchange
from sandbox.salesforce.fault import Endpoint, Fault, FaultKind, Faults
from sandbox.salesforce.query import Queries
from sandbox.salesforce.rate import CallRate
from sandbox.salesforce.records import Records, Result
from sandbox.salesforce.schema import EXTERNAL_ID, OBJECTS, ObjectType
from sandbox.salesforce.soql import MALFORMED
from sandbox.salesforce.spoil import answer_of, limit_exceeded, outcome_of, spoil
from sandbox.salesforce.target import COLLECTION_VERSION_MIN, Target
from sandbox.salesforce.tokens import ConnectedApp, Tokens

RECORDS_PER_CALL_MAX: Final = 200
_FORM_FIELDS_MAX = 20
_IDENTITY = "id/00D000000000001EAA/005000000000001AAA"


class Rest:
    """Serve what a client of Salesforce calls."""

    def __init__(
        self, app: ConnectedApp, tokens: Tokens, records: Records, faults: Faults, rate: CallRate, counts: Counts
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._records = records
        self._queries = Queries(records)
        self._faults = faults
        self._rate = rate
        self._counts = counts

    async def serve(self, exchange: Exchange, target: Target) -> None:
        """Serve one call. The work itself never waits, so no other call comes between its check and its log."""
        ending = await self._meet(exchange, target, after_apply=False)
        served = None if ending is not None else self._work(exchange, target)
        if served is not None and served.status < HTTPStatus.MULTIPLE_CHOICES:
            ending = await self._meet(exchange, target, after_apply=True)
        if ending is None and served is not None:
            self._counts.count_call(target.endpoint, str(served.status))
            await exchange.answer(served)
        elif ending is not None:
            answer = answer_of(ending, target, served)
            self._counts.count_call(target.endpoint, outcome_of(ending, answer))
            await spoil(exchange, ending, answer)

    async def _meet(self, exchange: Exchange, target: Target, *, after_apply: bool) -> Fault | None:
        """Meet the faults that are due now, and return the one that ends the call."""
        for fault in self._faults.take(target.endpoint, target.object_type, after_apply=after_apply):
            if fault.kind.ends_call:
                return fault
            if fault.kind is FaultKind.EXPIRED:
                self._tokens.revoke_all()
            elif fault.seconds is not None:
                await exchange.pause(fault.seconds)
        return None

    def _work(self, exchange: Exchange, target: Target) -> Answer:
        if target.endpoint is Endpoint.TOKEN:
            return self._issue_token(exchange)
        refusal = self._refusal(exchange, "GET" if target.endpoint is Endpoint.QUERY else "PATCH")
        if refusal is not None:
            return refusal
        return self._query(exchange, target) if target.endpoint is Endpoint.QUERY else self._change(exchange, target)

    def _change(self, exchange: Exchange, target: Target) -> Answer:
        if not exchange.header(b"content-type").lower().startswith("application/json"):
            return api_error(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json")
        kind = OBJECTS.get(target.object_type or "")
        if kind is None:
            return not_found()
        if target.field != EXTERNAL_ID:
            message = f"Provided external ID field does not exist or is not accessible: {target.field}"
            return api_error(404, "NOT_FOUND", message)
        try:
            body = orjson.loads(exchange.body)
        except ValueError:
            return _malformed("The body is no JSON")
        try:
            if target.external_id is None:
                return self._upsert_collection(kind, body)
            return self._upsert_single(kind, target, body)
        except AppliedLogError as error:
            return api_error(500, "UNKNOWN_EXCEPTION", f"Nothing was applied: {error}")

    def _refusal(self, exchange: Exchange, method: str) -> Answer | None:
        """Return why a call is not even read; None when it is."""
        if exchange.method != method:
            message = f"HTTP Method '{exchange.method}' not allowed. Allowed are {method}"
            return api_error(405, "METHOD_NOT_ALLOWED", message, (), (b"allow", method.encode()))
        scheme, _, token = exchange.header(b"authorization").partition(" ")
        if scheme.lower() not in ("bearer", "oauth"):
            return api_error(401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE", (), (b"www-authenticate", b"Token"))
        if not self._tokens.is_valid(token):
            message = "Session expired or invalid"
            return api_error(401, "INVALID_SESSION_ID", message, (), (b"www-authenticate", b"Token"))
        if not self._rate.allows(asyncio.get_running_loop().time()):
            return limit_exceeded()
        return None

    def _query(self, exchange: Exchange, target: Target) -> Answer:
        if target.locator is not None:
            return self._queries.more(target.locator, target.version)
        try:
            asked = dict(parse_qsl(exchange.query.decode("ascii"), errors="strict", max_num_fields=_FORM_FIELDS_MAX))
        except ValueError:
            asked = {}
        if asked.keys() != {"q"}:
            return api_error(400, MALFORMED, "The request must have q, one SOQL statement, and nothing else")
        return self._queries.run(asked["q"], target.version)

    def _upsert_collection(self, kind: ObjectType, body: object) -> Answer:
        if not isinstance(body, dict) or not isinstance(sent := body.get("records"), list):
            return _malformed("The body must be an object with a list of records")
        all_or_none = body.get("allOrNone", False)
        if not isinstance(all_or_none, bool) or len(body) > 1 + ("allOrNone" in body):
            return _malformed("Beside records there may be only allOrNone, true or false")
        if len(sent) > RECORDS_PER_CALL_MAX:
            message = f"record limit reached. cannot submit more than {RECORDS_PER_CALL_MAX} records into this call"
            return api_error(400, "EXCEEDED_ID_LIMIT", message)
        for record in sent:
            attributes = record.pop("attributes", None) if isinstance(record, dict) else None
            if not isinstance(attributes, dict) or attributes.get("type") != kind.name:
                return api_error(400, "INVALID_INPUT", f"Each record must have attributes with the type {kind.name}")
        results = self._upsert(kind, sent, all_or_none=all_or_none)
        return as_json(200, [_told(result) for result in results])

    def _upsert_single(self, kind: ObjectType, target: Target, body: object) -> Answer:
        if not isinstance(body, dict):
            return _malformed("The body must be an object")
        if EXTERNAL_ID in body:
            message = f"The {EXTERNAL_ID} field should not be specified in the sobject data."
            return api_error(400, "INVALID_FIELD", message, (EXTERNAL_ID,))
        body.pop("attributes", None)
        result = self._upsert(kind, [{EXTERNAL_ID: target.external_id, **body}])[0]
        if result.errors:
            errors = [
                {"message": error.message, "errorCode": error.status_code, "fields": error.fields}
                for error in result.errors
            ]
            return as_json(400, errors)
        if target.version < COLLECTION_VERSION_MIN and not result.is_created:
            return Answer(204)
        return as_json(201 if result.is_created else 200, _told(result))

    def _upsert(self, kind: ObjectType, sent: list[Content], *, all_or_none: bool = False) -> list[Result]:
        faults = self._faults.record_faults(kind.name)
        if faults is None:
            results = self._records.upsert(kind, sent, all_or_none=all_or_none)
        else:
            results = self._records.upsert(kind, sent, all_or_none=all_or_none, refuse=faults.refuse)
            faults.close()
        self._counts.count_records(results)
        return results

    def _issue_token(self, exchange: Exchange) -> Answer:
        if exchange.method != "POST":
            return oauth_error(405, "invalid_request", "must use HTTP POST")
        try:
            form = dict(parse_qsl(exchange.body.decode("ascii"), errors="strict", max_num_fields=_FORM_FIELDS_MAX))
        except ValueError:
            return oauth_error(400, "invalid_request", "the body must be a form")
        if "grant_type" not in form:
            return oauth_error(400, "unsupported_grant_type", "grant type not supplied")
        if form["grant_type"] != "client_credentials":
            return oauth_error(400, "unsupported_grant_type", "grant type not supported")
        client_id, client_secret = _basic(exchange.header(b"authorization")) or (
            form.get("client_id", ""),
            form.get("client_secret", ""),
        )
        if not self._app.knows(client_id, client_secret):
            return oauth_error(400, "invalid_client", "invalid client credentials")
        self._counts.tokens_issued += 1
        base = f"http://{exchange.header(b'host')}"
        identity, issued_at = f"{base}/{_IDENTITY}", str(int(time() * 1_000))
        signature = hmac.digest(self._app.client_secret.encode(), f"{identity}{issued_at}".encode(), sha256)
        content: dict[str, Any] = {  # Any: what JSON can hold
            "access_token": self._tokens.issue(),
            "signature": base64.b64encode(signature).decode(),
            "scope": "api",
            "instance_url": base,
            "id": identity,
            "token_type": "Bearer",
            "issued_at": issued_at,
        }
        return as_json(200, content, (b"cache-control", b"no-store"))


def not_found() -> Answer:
    """Make the answer to a path that leads nowhere."""
    return api_error(404, "NOT_FOUND", "The requested resource does not exist")


def _malformed(message: str) -> Answer:
    return api_error(400, "JSON_PARSER_ERROR", message)


def _told(result: Result) -> dict[str, object]:
    errors = [
        {"statusCode": error.status_code, "message": error.message, "fields": error.fields} for error in result.errors
    ]
    return {"id": result.id, "success": not errors, "errors": errors, "created": result.is_created}


def _basic(header: str) -> tuple[str, str] | None:
    """Return the name and the secret of basic authentication; None where there is none."""
    scheme, _, given = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, secret = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return name, secret
