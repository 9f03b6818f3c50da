"""Answer queries: which records they find, and their pages.

A query is a snapshot: it is answered whole before anything else happens, and its later pages show what its records
were then. As in Salesforce a comparison of texts takes no notice of case, but that of external ids does; a text that is
empty is null; null is below and above nothing, and comes first in any order. Without ORDER BY the order is that of the
records' creation.
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from sandbox.salesforce.answer import Answer, api_error, as_json
from sandbox.salesforce.applied_log import Content
from sandbox.salesforce.errors import QueryError
from sandbox.salesforce.records import Record, Records, record_id
from sandbox.salesforce.schema import EXTERNAL_ID, OBJECTS, ObjectType
from sandbox.salesforce.soql import MALFORMED, Condition, Literal, Order, read_statement

RECORDS_PER_PAGE_MAX: Final = 2_000
OPEN_MAX: Final = 10
"""How many queries of more than one page are open; the oldest one goes first."""
_LOCATOR_PREFIX: Final = "01g"
_OFFSET_DIGITS_MAX: Final = 8
_HINT: Final = "Please reference your WSDL or the describe call for the appropriate names."

Value = str | int | bool | None
Key = Callable[[Any], Any]  # Any: a value that the field's check has let in

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class _Column:
    """What a query may name: where its value is in a record, and how two of them compare."""

    name: str
    kind: type
    read: Callable[[Record], Value]
    key: Key

    def key_of(self, record: Record) -> object:
        value = self.read(record)
        return None if value is None else self.key(value)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What a query has found: of each record its id and the values that were asked for."""

    kind: ObjectType
    columns: tuple[_Column, ...]
    rows: Sequence[tuple[Any, ...]]


class Queries:
    """Answer queries about the records, and remember those that are not done."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._open: OrderedDict[str, _Snapshot] = OrderedDict()
        self._count = 0

    def run(self, text: str, version: int) -> Answer:
        """Return the first page of a query, or why it is refused."""
        try:
            found = self._find(text)
        except QueryError as error:
            return api_error(400, error.code, str(error))
        locator = ""
        if len(found.rows) > RECORDS_PER_PAGE_MAX:
            self._count += 1
            locator = record_id(_LOCATOR_PREFIX, self._count)
            self._open[locator] = found
            if len(self._open) > OPEN_MAX:
                self._open.popitem(last=False)
        return self._page(found, locator, 0, version)

    def more(self, locator: str, version: int) -> Answer:
        """Return the page of an open query that a locator names; the same one again as often as it is asked for."""
        name, _, offset = locator.partition("-")
        found = self._open.get(name)
        is_number = offset.isascii() and offset.isdecimal() and len(offset) <= _OFFSET_DIGITS_MAX
        if found is None or not is_number or not 0 < int(offset) < len(found.rows):
            return api_error(404, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(found, name, int(offset), version)

    def _find(self, text: str) -> _Snapshot:
        statement = read_statement(text)
        kind = _TYPES.get(statement.object_type.lower())
        if kind is None:
            message = f"sObject type '{statement.object_type}' is not supported. {_HINT}"
            raise QueryError("INVALID_TYPE", message)
        columns = tuple(_column(kind, name) for name in statement.fields)
        if len(set(columns)) < len(columns):
            raise QueryError(MALFORMED, "duplicate field selected")
        records: Sequence[Record] = list(self._records.of(kind.name).values())
        for condition in statement.conditions:
            meets = _test(_column(kind, condition.field), condition)
            records = [record for record in records if meets(record)]
        if statement.order is not None:
            records = _sorted(records, _column(kind, statement.order.field), statement.order)
        reads = [column.read for column in columns]
        rows = [(record.id, *[read(record) for read in reads]) for record in islice(records, statement.limit)]
        return _Snapshot(kind, columns, rows)

    def _page(self, found: _Snapshot, locator: str, offset: int, version: int) -> Answer:
        end = offset + RECORDS_PER_PAGE_MAX
        is_done = end >= len(found.rows)
        content: dict[str, object] = {"totalSize": len(found.rows), "done": is_done}
        if not is_done:
            content["nextRecordsUrl"] = f"/services/data/v{version}.0/query/{locator}-{end}"
        content["records"] = [self._shown(found, row, version) for row in found.rows[offset:end]]
        return as_json(200, content)

    def _shown(self, found: _Snapshot, row: Sequence[Any], version: int) -> Content:
        shown: Content = {"attributes": _attributes(found.kind.name, row[0], version)}
        for column, value in zip(found.columns, row[1:], strict=True):
            relation, dot, name = column.name.partition(".")
            if not dot:
                shown[column.name] = value
            elif value is None:
                shown[relation] = None
            else:
                target = found.kind.masters[relation]
                master = self._records.of(target)[value]
                shown[relation] = {"attributes": _attributes(target, master.id, version), name: value}
        return shown


def _attributes(object_type: str, id_: str, version: int) -> Content:
    return {"type": object_type, "url": f"/services/data/v{version}.0/sobjects/{object_type}/{id_}"}


def _test(column: _Column, condition: Condition) -> Callable[[Record], bool]:
    """Return what says whether a record meets a condition."""
    wanted: Literal = None if condition.literal == "" else condition.literal
    is_order = condition.operator not in ("=", "!=")
    if is_order and (wanted is None or column.kind is bool):
        raise QueryError(MALFORMED, f"invalid operator for field '{column.name}': {condition.operator}")
    if wanted is not None and type(wanted) is not column.kind:
        quotes = "should be enclosed in quotes" if column.kind is str else "should not be enclosed in quotes"
        message = (
            f"value of filter criterion for field '{column.name}' must be of type {_TOLD[column.kind]} and {quotes}"
        )
        raise QueryError("INVALID_FIELD", message)
    compare, key_of = _OPERATORS[condition.operator], column.key_of
    key = wanted if wanted is None or isinstance(wanted, datetime) else column.key(wanted)
    if is_order:
        return lambda record: (own := key_of(record)) is not None and compare(own, key)
    return lambda record: compare(key_of(record), key)


def _sorted(records: Sequence[Record], column: _Column, order: Order) -> list[Record]:
    """Sort by a column, the blank ones first; what is equal there stays in its order."""
    keyed = [(column.key_of(record), record) for record in records]
    blank = [record for key, record in keyed if key is None]
    filled: list[tuple[Any, Record]] = [(key, record) for key, record in keyed if key is not None]
    filled.sort(key=operator.itemgetter(0), reverse=order.is_descending)
    return [*blank, *(record for _, record in filled)]


def _column(kind: ObjectType, name: str) -> _Column:
    found = _COLUMNS[kind.name].get(name.lower())
    if found is None:
        message = f"No such column '{name}' on entity '{kind.name}'. {_HINT}"
        raise QueryError("INVALID_FIELD", message)
    return found


def _read_field(name: str) -> Callable[[Record], Value]:
    def read(record: Record) -> Value:
        value: Value = record.fields.get(name)
        return None if value == "" else value

    return read


def _read_master(relation: str) -> Callable[[Record], Value]:
    def read(record: Record) -> Value:
        master = record.fields.get(relation)
        return None if master is None else str(master[EXTERNAL_ID])

    return read


def _same(value: object) -> object:
    return value


_KINDS: Final[Mapping[str, tuple[type, Key]]] = {
    "text": (str, str.casefold),
    "picklist": (str, str.casefold),
    "datetime": (datetime, datetime.fromisoformat),
    "checkbox": (bool, _same),
    "number": (int, _same),
}
_TOLD: Final[Mapping[type, str]] = {str: "string", datetime: "dateTime", bool: "boolean", int: "double"}


def _columns(kind: ObjectType) -> dict[str, _Column]:
    columns = [_Column("Id", str, lambda record: record.id, _same)]
    for name, field in kind.fields.items():
        if name in kind.masters:
            columns.append(_Column(f"{name}.{EXTERNAL_ID}", str, _read_master(name), _same))
            continue
        value_type, key = _KINDS[field.kind.partition("(")[0]]
        columns.append(_Column(name, value_type, _read_field(name), _same if name == EXTERNAL_ID else key))
    return {column.name.lower(): column for column in columns}


_TYPES: Final[Mapping[str, ObjectType]] = {name.lower(): kind for name, kind in OBJECTS.items()}
_COLUMNS: Final[Mapping[str, Mapping[str, _Column]]] = {name: _columns(kind) for name, kind in OBJECTS.items()}
