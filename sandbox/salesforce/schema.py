"""The objects of the stand-in as tables of fields, and the checks that Salesforce makes of each value.

Texts, codes and messages are those of Salesforce. One thing is simpler here: a value is kept as it was sent, where
Salesforce turns times into UTC and takes the spaces off a text's ends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

EXTERNAL_ID: Final = "ExternalId__c"
VERSION: Final = "Version__c"
DELETED: Final = "Deleted__c"
EXTERNAL_ID_CHARACTERS_MAX: Final = 255
NUMBER_MAX: Final = 10**18 - 1
"""The greatest number(18,0): anything longer is refused, so that a version which would be rounded is noticed."""
ERRORS_PER_RECORD_MAX: Final = 10
_ECHO_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class RecordError:
    """Why one record of a call was refused: a status code of Salesforce, a message, and the fields at fault."""

    status_code: str
    message: str
    fields: tuple[str, ...] = ()


Check = Callable[[object], RecordError | None]
"""Looks at a value that is not null."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: what a page calls its type, how a value is checked, and whether a new record needs one."""

    kind: str
    check: Check
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class ObjectType:
    """One object.

    Attributes:
        name: its API name.
        key_prefix: the first three characters of its records' ids.
        fields: by API name.
        masters: relation fields, and the object whose external id each of them names.
        required: the fields that a new record needs, unless it is created as deleted.
        defaults: what a new record holds where nothing is sent: a checkbox is never null.
    """

    name: str
    key_prefix: str
    fields: Mapping[str, Field]
    masters: Mapping[str, str] = field(default_factory=dict)
    required: tuple[str, ...] = field(init=False)
    defaults: Mapping[str, object] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "required", tuple(name for name, one in self.fields.items() if one.is_required))
        defaults = {name: False for name, one in self.fields.items() if one.kind == "checkbox"}
        object.__setattr__(self, "defaults", defaults)

    def errors(self, values: Mapping[str, object]) -> list[RecordError]:
        """Return what is wrong with the values of one record, each by itself; at most ten errors."""
        found: list[RecordError] = []
        fields = self.fields
        for name, value in values.items():
            known = fields.get(name)
            if known is None:
                message = f"No such column '{_shown(name)}' on sobject of type {self.name}"
                found.append(RecordError("INVALID_FIELD", message, (name,)))
            elif value is None:
                if name in self.defaults:
                    found.append(_wrong_type(name, value))
            elif (error := known.check(value)) is not None:
                found.append(error)
            if len(found) == ERRORS_PER_RECORD_MAX:
                break
        return found


def _shown(value: object) -> str:
    if isinstance(value, dict | list):  # which may be too deep to be written out
        return "{...}" if isinstance(value, dict) else "[...]"
    text = str(value)
    return text if len(text) <= _ECHO_CHARACTERS else f"{text[:_ECHO_CHARACTERS]}..."


def _wrong_type(name: str, value: object) -> RecordError:
    return RecordError(
        "INVALID_TYPE_ON_FIELD_IN_RECORD", f"{name}: value not of required type: {_shown(value)}", (name,)
    )


def _text(name: str, characters_max: int, *, is_required: bool = False) -> Field:
    def check(value: object) -> RecordError | None:
        if not isinstance(value, str):
            return _wrong_type(name, value)
        if len(value) > characters_max:
            message = f"{name}: data value too large: {_shown(value)} (max length={characters_max})"
            return RecordError("STRING_TOO_LONG", message, (name,))
        return None

    return Field(f"text({characters_max})", check, is_required)


def _picklist(name: str, values: Collection[str]) -> Field:
    allowed = frozenset(values)

    def check(value: object) -> RecordError | None:
        if not isinstance(value, str):
            return _wrong_type(name, value)
        if value not in allowed:
            message = f"{name}: bad value for restricted picklist field: {_shown(value)}"
            return RecordError("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, (name,))
        return None

    return Field(f"picklist({', '.join(values)})", check)


def _datetime(name: str) -> Field:
    def check(value: object) -> RecordError | None:
        if not isinstance(value, str) or value[10:11] != "T":
            return _wrong_type(name, value)
        try:
            has_offset = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            has_offset = False
        return None if has_offset else _wrong_type(name, value)

    return Field("datetime", check)


def _checkbox(name: str) -> Field:
    return Field("checkbox", lambda value: None if isinstance(value, bool) else _wrong_type(name, value))


def _number(name: str, *, is_required: bool = False) -> Field:
    def check(value: object) -> RecordError | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return _wrong_type(name, value)
        if not -NUMBER_MAX <= value <= NUMBER_MAX:
            message = f"{name}: value outside of valid range on numeric field: {value}"
            return RecordError("NUMBER_OUTSIDE_VALID_RANGE", message, (name,))
        return None

    return Field("number(18,0)", check, is_required)


def _master(name: str, target: str) -> Field:
    def check(value: object) -> RecordError | None:
        if not isinstance(value, dict) or len(value) != 1 or not isinstance(value.get(EXTERNAL_ID), str):
            return _wrong_type(name, value)
        return None

    return Field(f"master({target})", check, is_required=True)


MASTER: Final = ObjectType(
    name="ConsentMaster__c",
    key_prefix="a00",
    fields={
        EXTERNAL_ID: _text(EXTERNAL_ID, EXTERNAL_ID_CHARACTERS_MAX),
        "MemberId__c": _text("MemberId__c", 80, is_required=True),
        "Status__c": _picklist("Status__c", ("granted", "withdrawn", "expired")),
        "PolicyVersion__c": _text("PolicyVersion__c", 40),
        "Channel__c": _picklist("Channel__c", ("app", "web", "branch", "call_centre")),
        "ChangedAt__c": _datetime("ChangedAt__c"),
        DELETED: _checkbox(DELETED),
        VERSION: _number(VERSION, is_required=True),
    },
)
DETAIL: Final = ObjectType(
    name="ConsentDetail__c",
    key_prefix="a01",
    fields={
        EXTERNAL_ID: _text(EXTERNAL_ID, EXTERNAL_ID_CHARACTERS_MAX),
        "Master__r": _master("Master__r", MASTER.name),
        "Purpose__c": _picklist("Purpose__c", ("email", "sms", "push", "phone", "post", "profiling", "third_party")),
        "Granted__c": _checkbox("Granted__c"),
        "ChangedAt__c": _datetime("ChangedAt__c"),
        DELETED: _checkbox(DELETED),
        VERSION: _number(VERSION, is_required=True),
    },
    masters={"Master__r": MASTER.name},
)
OBJECTS: Final[Mapping[str, ObjectType]] = {one.name: one for one in (MASTER, DETAIL)}
