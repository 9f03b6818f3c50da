"""Put consents into Salesforce: at most 200 records of one object a call, and an outcome for each of them.

200 OK does not mean stored: each record has its own result. A call as a whole that comes to nothing says nothing of its
records, so it is repeated, never counted against them. Repeating is harmless: a record is found by its external id, and
a validation rule in Salesforce keeps an older version from overwriting a newer one.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import orjson

from runtime.http_client import HttpClient
from runtime.logs import get_logger
from services.consent_consumer.errors import SalesforceDenied, SalesforceUnavailable
from services.consent_consumer.outcome import (
    DUPLICATE_EXTERNAL_ID,
    Outcome,
    UnreadableResultError,
    Verdict,
    is_code,
    judge,
)
from services.consent_consumer.record import EXTERNAL_ID, Record
from services.consent_consumer.salesforce_http import Answer, Client, SalesforceHttp
from services.consent_consumer.salesforce_pause import DEPENDENCY, Pause
from services.consent_consumer.salesforce_settings import SalesforceSettings
from services.consent_consumer.salesforce_token import AccessToken, Tokens

RECORDS_PER_CALL_MAX: Final = 200
_LIMIT_EXCEEDED = "REQUEST_LIMIT_EXCEEDED"
_SPARE_CODES: Final = frozenset({_LIMIT_EXCEEDED, "SERVER_UNAVAILABLE"})
_MEND_CODES: Final = frozenset({"STORAGE_LIMIT_EXCEEDED"})
"""What Salesforce says of a record, though it is no record's fault: it would say the same of every other one."""

_RECORD_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")

_log = get_logger(__name__)


class FoundRecord(NamedTuple):
    """A record of Salesforce, by its own id and by ours, which two records have where that is not unique there."""

    record_id: str
    external_id: str


class _CallRefusedError(Exception):
    """The call is refused whole for what it holds, which may be one record's fault."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class Salesforce:
    """A client that shares one token, one pause and one pool of connections among all its callers.

    A caller who is told to wait waits; meanwhile every call fails at once, and nothing is sent.
    """

    def __init__(self, http: SalesforceHttp, tokens: Tokens, pause: Pause, settings: SalesforceSettings) -> None:
        self._http = http
        self._tokens = tokens
        self._pause = pause
        self._settings = settings
        self._is_closed = False

    def close(self) -> None:
        """Begin no call any more. One that is under way may end; of one that is made in halves the rest is given up."""
        self._is_closed = True

    @property
    def paused_seconds(self) -> float:
        """How long no call will be made; 0 when there is no pause."""
        return self._pause.seconds

    async def upsert(self, object_type: str, records: Sequence[Record]) -> list[Outcome]:
        """Create or update records by their external id, and return what became of each, in their order.

        A call that Salesforce refuses whole is made again in halves, until the record at fault is found. A cancel, as
        any error, leaves unknown which of the records are stored; sending them again is harmless.

        Args:
            object_type: the object's API name.
            records: 200 at most, each with an external id of its own.

        Raises:
            SalesforceDenied: Salesforce will not serve this client until somebody has mended something.
            SalesforceUnavailable: It cannot now; ask again after `retry_after_seconds`. Or this client is closed.
            ValueError: There are more records, or two with one external id.
        """
        if len(records) > RECORDS_PER_CALL_MAX:
            raise ValueError(f"records must be at most {RECORDS_PER_CALL_MAX}")
        if len({record[EXTERNAL_ID] for record in records}) < len(records):
            raise ValueError("records must have an external id each")
        outcomes: list[Outcome] = []
        parts = [records] if records else []
        while parts:
            part = parts.pop()
            try:
                outcomes += await self._store(object_type, part)
            except _CallRefusedError as error:
                if part is records:
                    _log.warning(
                        "Salesforce refused a call", object_type=object_type, code=error.code, records=len(part)
                    )
                if len(part) == 1:
                    outcomes.append(Outcome(Verdict.REFUSED, error.code, "the call as a whole"))
                else:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
        if any(outcome.is_alarm for outcome in outcomes):
            _log.error("An external id is not unique in Salesforce", object_type=object_type)
        return outcomes

    async def find_older(self, object_type: str, version: int, after_id: str = "") -> list[FoundRecord]:
        """Return the next records, 200 at most, that live and are older than a version; none if there are no more.

        Args:
            object_type: the object's API name.
            version: of the first that is not older.
            after_id: the last record's own id of those before; they come in the order of it.

        Raises:
            SalesforceDenied, SalesforceUnavailable: as `upsert`.
        """
        behind = f" AND Id > '{after_id}'" if after_id else ""
        statement = (
            f"SELECT Id, {EXTERNAL_ID} FROM {object_type} WHERE Deleted__c = false AND Version__c < {version:d}"  # noqa: S608 - ours, and an id that was looked at
            f" AND {EXTERNAL_ID} != null{behind} ORDER BY Id LIMIT {RECORDS_PER_CALL_MAX}"
        )
        try:
            answer = await self._call("GET", f"/query?q={quote(statement)}")
        except _CallRefusedError as error:
            raise self._denied(f"refused a query: {error.code}") from None
        try:
            return [_found(record) for record in orjson.loads(answer.body)["records"]]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            raise self._pause.fail("answered 200 with what is no list of records", began=answer.began) from None

    async def _store(self, object_type: str, records: Sequence[Record]) -> list[Outcome]:
        path = f"/composite/sobjects/{quote(object_type)}/{EXTERNAL_ID}"
        return self._outcomes(await self._call("PATCH", path, _content(object_type, records)), len(records))

    async def _call(self, method: str, path: str, content: bytes | None = None) -> Answer:
        """Make one call, with whatever token it takes, and return its answer if that is 200.

        Raises:
            _CallRefusedError: It is refused for what it holds.
        """
        if self._is_closed:
            raise SalesforceUnavailable(DEPENDENCY, "this client is closed")
        path = f"/services/data/{self._settings.api_version}{path}"
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                answer = await self._send(method, path, content, token := await self._tokens.current())
                if answer.status == HTTPStatus.UNAUTHORIZED:
                    answer = await self._send(method, path, content, await self._tokens.current(refused=token))
        except TimeoutError:
            seconds = self._settings.timeout_seconds
            raise self._pause.fail(f"not done within {seconds:g} s, token and all", began=began) from None
        if answer.status != HTTPStatus.OK:
            raise self._failure(answer)
        return answer

    async def _send(self, method: str, path: str, content: bytes | None, token: AccessToken) -> Answer:
        headers = {"authorization": f"Bearer {token.value}"}
        if content is not None:
            headers["content-type"] = "application/json"
        return await self._http.send(method, path, content, headers)

    def _outcomes(self, answer: Answer, count: int) -> list[Outcome]:
        try:
            results = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            raise self._pause.fail("answered 200 with what is no JSON", began=answer.began) from None
        if not isinstance(results, list) or len(results) != count:
            raise self._pause.fail("answered 200 without a result for each record", began=answer.began)
        try:
            outcomes = judge(results, self._settings.version_rule)
        except UnreadableResultError:
            raise self._pause.fail("answered 200 with a result that cannot be read", began=answer.began) from None
        codes = {outcome.code for outcome in outcomes}
        if not codes.isdisjoint(_MEND_CODES):
            raise self._denied(f"refused a record: {', '.join(codes & _MEND_CODES)}")
        if not codes.isdisjoint(_SPARE_CODES):
            raise self._pause.fail(f"refused a record: {', '.join(sorted(codes & _SPARE_CODES))}", began=answer.began)
        self._pause.settle(began=answer.began)
        return outcomes

    def _failure(self, answer: Answer) -> SalesforceUnavailable | _CallRefusedError:
        """Return what a status other than 200 means."""
        code = _error_code(answer)
        said = f"answered {answer.status} {code}".rstrip()
        match answer.status:
            case HTTPStatus.MULTIPLE_CHOICES:
                return _CallRefusedError(DUPLICATE_EXTERNAL_ID)
            case HTTPStatus.BAD_REQUEST | HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                return _CallRefusedError(code or str(answer.status))
            case HTTPStatus.UNAUTHORIZED:
                return self._pause.fail("refused a token it had just given", began=answer.began)
        if answer.status >= HTTPStatus.BAD_REQUEST and code != _LIMIT_EXCEEDED:
            return self._denied(said)
        return self._pause.fail(said, began=answer.began)

    def _denied(self, detail: str) -> SalesforceDenied:
        """Tell of what waiting does not mend; it may concern one object, so the others are not kept back."""
        _log.error("Salesforce denies its service", reason=detail)
        return SalesforceDenied(DEPENDENCY, detail, retry_after_seconds=self._settings.denied_pause_seconds)


def _content(object_type: str, records: Sequence[Record]) -> bytes:
    attributes = {"type": object_type}
    sent = [{"attributes": attributes, **record} for record in records]
    try:
        return orjson.dumps({"allOrNone": False, "records": sent})
    except orjson.JSONEncodeError:
        raise _CallRefusedError("NOT_JSON") from None


def _found(record: Any) -> FoundRecord:  # noqa: ANN401 - whatever the other side sent
    record_id, external_id = record["Id"], record[EXTERNAL_ID]
    if not isinstance(external_id, str) or _RECORD_ID.fullmatch(record_id) is None:
        raise ValueError("no record")
    return FoundRecord(record_id, external_id)


def _error_code(answer: Answer) -> str:
    """Return the code of an array of errors, the form in which a failed call is told; nothing if it is none."""
    try:
        content = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return ""
    first = content[0] if isinstance(content, list) and content else None
    code = first.get("errorCode") if isinstance(first, dict) else None
    return code if isinstance(code, str) and is_code(code) else ""


def build_salesforce(client: Client, settings: SalesforceSettings) -> Salesforce:
    """Make a client of Salesforce on one of HTTP, which stays the caller's to close."""
    pause = Pause(settings)
    http = SalesforceHttp(client, settings, pause)
    return Salesforce(http, Tokens(http, settings, pause), pause, settings)


@asynccontextmanager
async def open_salesforce(settings: SalesforceSettings) -> AsyncIterator[Salesforce]:
    """Open a client for the length of a block; nothing is connected until it is asked for."""
    is_plain = settings.url.startswith("http://")
    async with HttpClient(
        settings.url,
        tls=None if is_plain else ssl.create_default_context(cafile=settings.tls_ca_file),
        connections_max=settings.connections_max,
        connect_seconds=settings.connect_timeout_seconds,
        idle_seconds=settings.idle_seconds,
        answer_bytes_max=settings.answer_bytes_max,
    ) as client:
        yield build_salesforce(client, settings)
