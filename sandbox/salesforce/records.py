"""What the sandbox holds: records by external id, the rules that a call must keep, and the log of what was applied.

The rule on versions stands for a validation rule on both objects, `Version__c < PRIORVALUE(Version__c)`: Salesforce has
no compare-and-set, and this is how an older event never overwrites a newer one there. An equal version is applied: it
is a replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

import orjson

from sandbox.salesforce.applied_log import AppliedLog, Content
from sandbox.salesforce.errors import AppliedLogError
from sandbox.salesforce.schema import DELETED, EXTERNAL_ID, OBJECTS, VERSION, ObjectType, RecordError

VERSION_RULE: Final = RecordError(
    "FIELD_CUSTOM_VALIDATION_EXCEPTION",
    "Version_Must_Not_Decrease: the record holds a newer version than the one that was sent",
    (VERSION,),
)
ROLLED_BACK: Final = RecordError(
    "ALL_OR_NONE_OPERATION_ROLLED_BACK",
    "Record rolled back because not all records were valid and the request was using AllOrNone header",
)
_FULL = RecordError("STORAGE_LIMIT_EXCEEDED", "storage limit exceeded")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECK_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"

Refuse = Callable[[str], RecordError | None]
"""Asked of each record's external id, in order: a fault may refuse it."""


@dataclass(slots=True)
class Record:
    """One record: its id, and its fields as they are now."""

    id: str
    fields: Content


@dataclass(slots=True)
class Result:
    """What became of one record of a call: its id and whether it is new, or why it was refused."""

    id: str | None
    is_created: bool
    errors: tuple[RecordError, ...] = ()


def record_id(prefix: str, number: int) -> str:
    """Make the 18 characters of an id; the last three tell which letters of the others are capital ones."""
    digits = ""
    while number:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    id15 = prefix + digits.rjust(15 - len(prefix), "0")
    return id15 + _check_digit(id15[:5]) + _check_digit(id15[5:10]) + _check_digit(id15[10:])


@lru_cache(maxsize=4_096)
def _check_digit(five: str) -> str:
    return _CHECK_DIGITS[sum(1 << place for place, letter in enumerate(five) if letter.isupper())]


class _Table:
    """The records of one object, by external id and in the order of their creation."""

    def __init__(self, kind: ObjectType) -> None:
        self.kind = kind
        self.by_external_id: dict[str, Record] = {}
        self.in_order: list[Record] = []

    def apply(self, entry: Content) -> None:
        """Apply one record of a call as it stands in the log."""
        external_id: str = entry["external_id"]
        if entry["created"]:
            record = Record(entry["id"], {**self.kind.defaults, **entry["fields"]})
            self.by_external_id[external_id] = record
            self.in_order.append(record)
        else:
            self.by_external_id[external_id].fields.update(entry["fields"])


class Records:
    """All records, held in memory, and in the log before a call is answered.

    Args:
        log: the file with what was applied; what it holds already is applied again.
        records_max: how many records there may be, of both objects together; one more is refused.
        log_bytes_max: how large the log may grow; a call that does not fit fails as a whole.

    Raises:
        AppliedLogError: the log cannot be used, or is not what this wrote.
    """

    def __init__(self, log: Path, *, records_max: int, log_bytes_max: int) -> None:
        self._records_max = records_max
        self._tables = {name: _Table(kind) for name, kind in OBJECTS.items()}
        self._count = 0
        self._log = AppliedLog(log, log_bytes_max)
        try:
            for call in self._log.replay():
                self._commit(call)
        except (KeyError, TypeError, ValueError) as error:
            self._log.close()
            raise AppliedLogError(f"{log} holds a line that was not written here: {error!r}") from error
        except BaseException:
            self._log.close()
            raise

    def __len__(self) -> int:
        return self._count

    def of(self, kind: str) -> Mapping[str, Record]:
        """Return the records of an object by external id, a view.

        Raises:
            KeyError: there is no such object.
        """
        return MappingProxyType(self._tables[kind].by_external_id)

    def page(self, kind: str, after: int, limit: int) -> list[Record]:
        """Return at most `limit` records of an object in the order of their creation, behind the first `after`.

        Raises:
            KeyError: there is no such object.
        """
        return self._tables[kind].in_order[after : after + limit]

    @property
    def log(self) -> AppliedLog:
        """The log of what was applied."""
        return self._log

    def upsert(
        self,
        kind: ObjectType,
        records: Sequence[Content],
        *,
        all_or_none: bool = False,
        refuse: Refuse = lambda _: None,
    ) -> list[Result]:
        """Create or update records by external id, and return what became of each, in their order.

        Nothing else happens meanwhile, and it is all in the log when this returns. Records that share an external id
        are all refused, since none of them could be told to be the last.

        Args:
            kind: the object.
            records: the fields of each record, without `attributes`.
            all_or_none: whether one refused record rolls all others back.
            refuse: asked for each record that could otherwise be judged; what it returns is that record's error.

        Raises:
            AppliedLogError: the log could not be written; nothing was applied.
        """
        table = self._tables[kind.name]
        doubled = _doubled(records)
        results: list[Result] = []
        changes: list[Content] = []
        room = self._records_max - self._count
        created = 0
        for fields in records:
            external_id = fields.get(EXTERNAL_ID)
            errors = self._errors(table, fields, doubled, refuse)
            known = None if errors else table.by_external_id.get(str(external_id))
            if not errors and known is None and created >= room:
                errors = (_FULL,)
            if errors:
                results.append(Result(None, False, errors))
                continue
            if known is None:
                created += 1
                result = Result(record_id(kind.key_prefix, len(table.in_order) + created), True)
            else:
                result = Result(known.id, False)
            results.append(result)
            changes.append(
                {"id": result.id, "external_id": external_id, "created": result.is_created, "fields": fields}
            )
        if all_or_none and len(changes) < len(results):
            return [result if result.errors else Result(None, False, (ROLLED_BACK,)) for result in results]
        if changes:
            self._apply(kind.name, changes)
        return results

    def _errors(
        self, table: _Table, fields: Content, doubled: frozenset[str], refuse: Refuse
    ) -> tuple[RecordError, ...]:
        """Return why a record is refused; nothing when it is not."""
        external_id = fields.get(EXTERNAL_ID)
        if external_id is None or external_id == "":
            return (RecordError("MISSING_ARGUMENT", f"{EXTERNAL_ID} not specified", (EXTERNAL_ID,)),)
        if isinstance(external_id, str):
            if external_id in doubled:
                message = f"Duplicate external id specified: {external_id}"
                return (RecordError("DUPLICATE_VALUE", message, (EXTERNAL_ID,)),)
            if (error := refuse(external_id)) is not None:
                return (error,)
        errors = table.kind.errors(fields)
        if not errors:
            errors = self._missing_masters(table.kind, fields)
        if not errors:
            known = table.by_external_id.get(str(external_id))
            error = _missing_fields(table.kind, fields) if known is None else _older_version(known, fields)
            errors = [] if error is None else [error]
        return tuple(errors)

    def _missing_masters(self, kind: ObjectType, fields: Content) -> list[RecordError]:
        errors: list[RecordError] = []
        for name, target in kind.masters.items():
            relation = fields.get(name)
            if relation is not None and (wanted := relation[EXTERNAL_ID]) not in self._tables[target].by_external_id:
                message = f"Foreign key external ID: {wanted} not found for field {EXTERNAL_ID} in entity {target}"
                errors.append(RecordError("INVALID_FIELD", message))
        return errors

    def _apply(self, kind: str, changes: list[Content]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        call = {"call": len(self._log) + 1, "at": at, "type": kind, "records": changes}
        self._log.append(orjson.dumps(call, option=orjson.OPT_APPEND_NEWLINE))
        self._commit(call)

    def _commit(self, call: Content) -> None:
        table = self._tables[call["type"]]
        before = len(table.in_order)
        for entry in call["records"]:
            table.apply(entry)
        self._count += len(table.in_order) - before

    def close(self) -> None:
        """Let go of the log. Idempotent."""
        self._log.close()


def _doubled(records: Sequence[Content]) -> frozenset[str]:
    """Return the external ids that more than one record bears."""
    given = [external_id for fields in records if isinstance(external_id := fields.get(EXTERNAL_ID), str)]
    if len(set(given)) == len(given):
        return frozenset()
    return frozenset(external_id for external_id, count in Counter(given).items() if count > 1)


def _missing_fields(kind: ObjectType, fields: Content) -> RecordError | None:
    needed = (VERSION,) if fields.get(DELETED) is True else kind.required
    missing = tuple(name for name in needed if fields.get(name) is None or fields[name] == "")
    if not missing:
        return None
    return RecordError("REQUIRED_FIELD_MISSING", f"Required fields are missing: [{', '.join(missing)}]", missing)


def _older_version(record: Record, fields: Content) -> RecordError | None:
    """Apply the validation rule, in which a blank counts as 0; a version that is not sent stays what it is."""
    if VERSION in fields and (fields[VERSION] or 0) < (record.fields.get(VERSION) or 0):
        return VERSION_RULE
    return None
