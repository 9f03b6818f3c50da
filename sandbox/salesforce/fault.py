"""What the sandbox does wrong on command: the kinds of faults, and which of them are switched on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from sandbox.salesforce.schema import OBJECTS, RecordError

FAULTS_MAX: Final = 50
CALLS_MAX: Final = 1_000_000
SECONDS_MAX: Final = 600.0
EXTERNAL_IDS_MAX: Final = 200
TEXT_CHARACTERS_MAX: Final = 255
_HEADER_TEXT = re.compile(r"[\x20-\x7e]*")
_CODE = re.compile(r"[A-Z][A-Z0-9_]*")

MESSAGES: Final = {
    "UNABLE_TO_LOCK_ROW": "unable to obtain exclusive access to this record",
    "FIELD_CUSTOM_VALIDATION_EXCEPTION": "A validation rule of the sandbox refuses this record",
    "DUPLICATES_DETECTED": "Use one of these records?",
    "DUPLICATE_EXTERNAL_ID": "The external ID provided matches more than one record",
}
"""What Salesforce says with some status codes; of any other one the sandbox says that it was asked for."""


class Endpoint(StrEnum):
    """Where a fault happens: at the request for a token, at a call that upserts, or at one that queries."""

    TOKEN = "token"  # noqa: S105 - an endpoint's name
    UPSERT = "upsert"
    QUERY = "query"


class FaultKind(StrEnum):
    """What goes wrong. Those up to GZIP end the call, each with what the client gets in place of its answer."""

    ERROR = "error"
    LIMIT = "limit"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    NOT_UNIQUE = "not_unique"
    DENIED = "denied"
    BAD_GATEWAY = "bad_gateway"
    HTML = "html"
    JUNK = "junk"
    RESET = "reset"
    HANG = "hang"
    HALF_BODY = "half_body"
    WRONG_LENGTH = "wrong_length"
    GZIP = "gzip"
    SLOW = "slow"
    EXPIRED = "expired"
    RECORD = "record"

    @property
    def ends_call(self) -> bool:
        """Whether a call that meets it gets this instead of its answer; the others only delay or change the answer."""
        return self not in (FaultKind.SLOW, FaultKind.EXPIRED, FaultKind.RECORD)


DESCRIPTIONS: Final = {
    FaultKind.ERROR: "500, an internal error",
    FaultKind.LIMIT: "403 REQUEST_LIMIT_EXCEEDED",
    FaultKind.THROTTLED: "429, with retry_after if that is given",
    FaultKind.UNAVAILABLE: "503, with retry_after if that is given",
    FaultKind.NOT_UNIQUE: "300, the external id belongs to two records",
    FaultKind.DENIED: "no token: 400 invalid_grant, or 401 with status 401",
    FaultKind.BAD_GATEWAY: "502 with a page of HTML",
    FaultKind.HTML: "200 with a page of HTML",
    FaultKind.JUNK: "200 with a body that is no JSON",
    FaultKind.RESET: "the connection is reset",
    FaultKind.HANG: "no answer, until the client leaves",
    FaultKind.HALF_BODY: "half of the body, then the end of the connection",
    FaultKind.WRONG_LENGTH: "a content-length of half the body, then the end of the connection",
    FaultKind.GZIP: "the body in gzip, asked for or not",
    FaultKind.SLOW: "the answer comes some seconds later",
    FaultKind.EXPIRED: "all tokens are invalid from this call on: 401 INVALID_SESSION_ID",
    FaultKind.RECORD: "records are refused with a status code",
}
_ONLY_AT = {
    FaultKind.NOT_UNIQUE: (Endpoint.UPSERT,),
    FaultKind.DENIED: (Endpoint.TOKEN,),
    FaultKind.EXPIRED: (Endpoint.UPSERT, Endpoint.QUERY),
    FaultKind.RECORD: (Endpoint.UPSERT,),
}
PARAMETERS: Final = {
    "retry_after": (FaultKind.THROTTLED, FaultKind.UNAVAILABLE),
    "seconds": (FaultKind.SLOW,),
    "status": (FaultKind.DENIED,),
    "code": (FaultKind.RECORD,),
    "every": (FaultKind.RECORD,),
    "external_ids": (FaultKind.RECORD,),
}
"""Which kinds a parameter belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing to go wrong, and where.

    Attributes:
        kind: what.
        endpoint: where; upserts are both the collection and the single record, queries are all their pages.
        object_type: only at upserts of this object; None for any.
        calls: at how many of these calls, those in which it took effect; None until it is switched off.
        after_apply: whether the call is served first, and its answer is then lost or spoiled. A call that was refused
            has applied nothing, and keeps its answer.
        seconds: of SLOW, above 0.
        retry_after: the header's text, which need not make sense; None for no such header.
        status: of DENIED, 400 or 401.
        code: of RECORD, the status code.
        every: of RECORD, each so many-th record, counted over all calls.
        external_ids: of RECORD, these records.

    Raises:
        ValueError: a parameter is out of its range, is missing, or does not belong to the kind.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    kind: FaultKind
    endpoint: Endpoint = Endpoint.UPSERT
    object_type: str | None = None
    calls: int | None = None
    after_apply: bool = False
    seconds: float | None = None
    retry_after: str | None = None
    status: int | None = None
    code: str | None = None
    every: int | None = None
    external_ids: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.endpoint not in _ONLY_AT.get(self.kind, (self.endpoint,)):
            raise ValueError(f"endpoint must be {' or '.join(_ONLY_AT[self.kind])} for {self.kind}")
        if self.object_type is not None and (self.object_type not in OBJECTS or self.endpoint is not Endpoint.UPSERT):
            raise ValueError("object_type must be one of the objects, and only for an upsert")
        if self.calls is not None and not 1 <= self.calls <= CALLS_MAX:
            raise ValueError(f"calls must be from 1 to {CALLS_MAX}")
        if self.after_apply and self.kind in (FaultKind.EXPIRED, FaultKind.DENIED, FaultKind.RECORD):
            raise ValueError(f"after_apply must be false for {self.kind}")
        for name, kinds in PARAMETERS.items():
            if getattr(self, name) is not None and self.kind not in kinds:
                raise ValueError(f"{name} belongs to {' and '.join(kinds)}")
        self._check_parameters()

    def _check_parameters(self) -> None:
        if self.kind is FaultKind.SLOW and (self.seconds is None or not 0 < self.seconds <= SECONDS_MAX):
            raise ValueError(f"seconds must be above 0 and at most {SECONDS_MAX:g}")
        if self.retry_after is not None and not _is_short(self.retry_after, _HEADER_TEXT):
            raise ValueError(f"retry_after must be at most {TEXT_CHARACTERS_MAX} printable ASCII characters")
        if self.status not in (None, 400, 401):
            raise ValueError("status must be 400 or 401")
        if self.kind is FaultKind.RECORD:
            self._check_record_parameters()

    def _check_record_parameters(self) -> None:
        if self.code is None or not _is_short(self.code, _CODE):
            raise ValueError("code must be capital letters, digits and underscores")
        if (self.every is None) == (self.external_ids is None):
            raise ValueError("every or external_ids must be given, and not both")
        if self.every is not None and not 1 <= self.every <= CALLS_MAX:
            raise ValueError(f"every must be from 1 to {CALLS_MAX}")
        if self.external_ids is not None and (
            not 1 <= len(self.external_ids) <= EXTERNAL_IDS_MAX
            or any(len(external_id) > TEXT_CHARACTERS_MAX for external_id in self.external_ids)
        ):
            raise ValueError(f"external_ids must be 1 to {EXTERNAL_IDS_MAX} of {TEXT_CHARACTERS_MAX} characters")


_ADAPTER: Final = TypeAdapter(Fault)


def read_fault(text: bytes) -> Fault:
    """Read a fault from JSON, every value of its own type.

    Raises:
        ValueError: it is none; the message names what is wrong.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        problems = [": ".join([*map(str, one["loc"]), _reason(one["msg"])]) for one in error.errors()]
        raise ValueError("; ".join(problems)) from error


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")


def _is_short(text: str, pattern: re.Pattern[str]) -> bool:
    return len(text) <= TEXT_CHARACTERS_MAX and pattern.fullmatch(text) is not None


@dataclass(slots=True)
class SwitchedOn:
    """A fault that is switched on.

    Attributes:
        id: its number, by which it is switched off.
        fault: what it is.
        hits: in how many calls it has taken effect.
        seen: how many records it has looked at.
    """

    id: int
    fault: Fault
    hits: int = 0
    seen: int = 0

    def matches(self, endpoint: Endpoint, object_type: str | None) -> bool:
        """Say whether a call is one of those that it is for."""
        fault = self.fault
        return fault.endpoint is endpoint and fault.object_type in (None, object_type)

    def refuses(self, external_id: str) -> bool:
        """Say whether it is this record's turn to be refused."""
        self.seen += 1
        if self.fault.every is not None:
            return self.seen % self.fault.every == 0
        return external_id in (self.fault.external_ids or ())


class Faults:
    """The faults that are switched on, the oldest first. One that has had all its calls goes by itself."""

    def __init__(self) -> None:
        self._on: dict[int, SwitchedOn] = {}
        self._last_id = 0

    def __iter__(self) -> Iterator[SwitchedOn]:
        return iter(tuple(self._on.values()))

    def __len__(self) -> int:
        return len(self._on)

    def switch_on(self, fault: Fault) -> int:
        """Switch a fault on and return its number.

        Raises:
            ValueError: there are 50 already.
        """
        if len(self._on) >= FAULTS_MAX:
            raise ValueError(f"there are {FAULTS_MAX} faults already; switch one off first")
        self._last_id += 1
        self._on[self._last_id] = SwitchedOn(self._last_id, fault)
        return self._last_id

    def switch_off(self, number: int) -> bool:
        """Switch a fault off; False when it is not on any more."""
        return self._on.pop(number, None) is not None

    def clear(self) -> None:
        """Switch all of them off."""
        self._on.clear()

    def take(self, endpoint: Endpoint, object_type: str | None, *, after_apply: bool) -> Sequence[Fault]:
        """Return what happens to a call, before or after it is served, in order: the last one may end the call."""
        if not self._on:
            return ()
        taken: list[Fault] = []
        for one in self:
            fault = one.fault
            is_due = fault.after_apply is after_apply and fault.kind is not FaultKind.RECORD
            if not is_due or not one.matches(endpoint, object_type):
                continue
            self._count(one)
            taken.append(fault)
            if fault.kind.ends_call:
                break
        return taken

    def record_faults(self, object_type: str) -> RecordFaults | None:
        """Return what refuses records of a call for this object; None when nothing does."""
        found = [
            one
            for one in self._on.values()
            if one.fault.kind is FaultKind.RECORD and one.matches(Endpoint.UPSERT, object_type)
        ]
        return RecordFaults(found, self) if found else None

    def _count(self, one: SwitchedOn) -> None:
        one.hits += 1
        if one.fault.calls is not None and one.hits >= one.fault.calls:
            self._on.pop(one.id, None)

    def count_call(self, hit: Sequence[SwitchedOn]) -> None:
        """Note that these have refused records of one call."""
        for one in hit:
            self._count(one)


@dataclass(slots=True)
class RecordFaults:
    """The faults that may refuse records of one call; each counts the call once, at the end, if it refused one."""

    on: Sequence[SwitchedOn]
    faults: Faults
    _hit: dict[int, SwitchedOn] = field(default_factory=dict)

    def refuse(self, external_id: str) -> RecordError | None:
        """Return why a record is refused, if it is; the oldest fault is asked first."""
        for one in self.on:
            if one.refuses(external_id):
                self._hit[one.id] = one
                code = str(one.fault.code)
                return RecordError(code, MESSAGES.get(code, f"The sandbox was asked for {code}"))
        return None

    def close(self) -> None:
        """Count the call."""
        self.faults.count_call(tuple(self._hit.values()))
