"""Documents of both collections that no release of ours wrote, and what becomes of each."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from loyalty.errors import ConsentError, MissingConsentFieldError, UnknownConsentVersionError, WrongConsentFieldError
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER
from tests.bad_input.http_row import CANARY, HOSTILE
from tests.support.consent_consumer_process import detail, master
from tests.support.consent_sample import VALUES

Document = dict[str, Any]  # Any: BSON

GOOD_MASTER: Final = "the master of all details"
_HUGE: Final = CANARY * 1_400_000  # 8.4 MB
_UNFIT: Final = VALUES | {"hostile": HOSTILE, "document": {CANARY: HOSTILE}, "list of it": [HOSTILE]}


@dataclass(frozen=True, slots=True)
class BsonRow:
    """A document, and by which error it is a dead letter; None for one that is carried all the same."""

    name: str
    collection: str
    document: Document
    error: type[ConsentError] | None


def _error_of(field: str, value: object) -> type[ConsentError] | None:
    if field == "schema_version":
        return UnknownConsentVersionError
    if value is None:
        return MissingConsentFieldError
    return None if _is_fit(field, value) else WrongConsentFieldError


def _is_fit(field: str, value: object) -> bool:
    match field:
        case "changed_at":
            return isinstance(value, datetime)
        case "is_granted":
            return isinstance(value, bool)
        case "policy_version":
            return type(value) is str and 1 <= len(value) <= 40 and value.isprintable()
    return False


def _spoilt(collection: str, good: Document, fields: tuple[str, ...]) -> Iterator[BsonRow]:
    for field in fields:
        without = {name: value for name, value in good.items() if name != field}
        yield BsonRow(f"{collection} without {field}", collection, without, _error_of(field, None))
        for name, value in _UNFIT.items():
            yield BsonRow(f"{collection}, {field} {name}", collection, good | {field: value}, _error_of(field, value))


def _rows() -> Iterator[BsonRow]:
    whole, part = master(None), detail(None, GOOD_MASTER)
    del whole["_id"], part["_id"]
    texts = ("member_id", "status", "policy_version", "channel")
    yield from _spoilt(CONSENT_MASTER, whole, (*texts, "changed_at", "schema_version"))
    yield from _spoilt(CONSENT_DETAIL, part, ("purpose", "is_granted", "changed_at", "schema_version"))
    for collection, good in ((CONSENT_MASTER, whole), (CONSENT_DETAIL, part)):
        yield BsonRow(f"{collection}, an id alone", collection, {}, UnknownConsentVersionError)
        newer = good | {"schema_version": 3}
        yield BsonRow(f"{collection}, of a release to come", collection, newer, UnknownConsentVersionError)
        more = good | {CANARY: dict(_UNFIT), "huge": _HUGE}
        yield BsonRow(f"{collection}, fields of others", collection, more, None)
    older = {name: whole[name] for name in ("member_id", "policy_version", "changed_at")}
    yield BsonRow("of the first release", CONSENT_MASTER, older | {"schema_version": 1, "granted": True}, None)
    yield BsonRow("of the first release, spoilt", CONSENT_MASTER, older | {"schema_version": 1, "granted": 1},
                  WrongConsentFieldError)  # fmt: skip
    huge = whole | {"policy_version": _HUGE}
    yield BsonRow("a huge field that is needed", CONSENT_MASTER, huge, WrongConsentFieldError)
    yield BsonRow("no master at all", CONSENT_DETAIL, part | {"master_id": None}, MissingConsentFieldError)


ROWS: Final = tuple(_rows())
