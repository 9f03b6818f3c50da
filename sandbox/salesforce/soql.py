"""Read the one shape of SOQL that the sandbox understands.

    SELECT field, ... FROM object [WHERE field (=|!=|<|<=|>|>=) literal [AND ...]] [ORDER BY field [ASC|DESC]] [LIMIT n]

Words are taken in any case, as Salesforce does. Nothing here knows which objects and fields there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from sandbox.salesforce.errors import QueryError

CHARACTERS_MAX: Final = 8_000
CONDITIONS_MAX: Final = 50
FIELDS_MAX: Final = 50
LIMIT_MAX: Final = 2**31 - 1
MALFORMED: Final = "MALFORMED_QUERY"

Literal = str | int | bool | datetime | None

# What each alternative begins with tells it from the others, and nothing repeats within a repetition: one pass.
_TOKEN: Final = re.compile(
    r"""[ \t\r\n]* (?:
        (?P<text> '(?:[^'\\]|\\.)*' )
      | (?P<moment> [0-9]{4}-[0-9]{2}-[0-9]{2} T [0-9]{2}:[0-9]{2}:[0-9]{2} (?:\.[0-9]{1,6})?
                    (?:Z|[+-][0-9]{2}:?[0-9]{2}) (?![\w.:-]) )
      | (?P<number> -?[0-9]{1,18} (?![\w.:-]) )
      | (?P<word> [A-Za-z]\w*(?:\.[A-Za-z]\w*)? (?![\w.]) )
      | (?P<sign> [<>!]= | [=<>,] )
      | (?P<end> \Z )
    )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_CONSTANTS: Final[Mapping[str, Literal]] = {"TRUE": True, "FALSE": False, "NULL": None}
_RESERVED: Final = frozenset({"SELECT", "FROM", "WHERE", "AND", "ORDER", "BY", "ASC", "DESC", "LIMIT", *_CONSTANTS})
_OPERATORS: Final = frozenset({"=", "!=", "<", "<=", ">", ">="})
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_ECHO_CHARACTERS: Final = 80


class Condition(NamedTuple):
    """What a record has to meet; the names are as they were sent."""

    field: str
    operator: str
    literal: Literal


class Order(NamedTuple):
    """By what records are sorted."""

    field: str
    is_descending: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """One query, read; `conditions` hold all together, and a `limit` of None is none."""

    fields: tuple[str, ...]
    object_type: str
    conditions: tuple[Condition, ...] = ()
    order: Order | None = None
    limit: int | None = None


class _Token(NamedTuple):
    kind: str
    text: str


def read_statement(text: str) -> Statement:
    """Read a query.

    Raises:
        QueryError: it is too long, or has another shape; its code is MALFORMED_QUERY.
    """
    if len(text) > CHARACTERS_MAX:
        raise QueryError(MALFORMED, f"SOQL statements cannot be longer than {CHARACTERS_MAX} characters")
    return _Reader(text).statement()


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while True:
        found = _TOKEN.match(text, place)
        if found is None:
            raise _unexpected(text[place:].lstrip())
        kind = str(found.lastgroup)
        yield _Token(kind, found[kind])
        if kind == "end":
            return
        place = found.end()


def _unexpected(text: str) -> QueryError:
    return QueryError(MALFORMED, f"unexpected token: '{text[:_ECHO_CHARACTERS]}'" if text else "unexpected end")


class _Reader:
    """Take one token after the other; each is looked at once."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = next(self._tokens)

    def statement(self) -> Statement:
        """Take the whole query."""
        self._expect("SELECT")
        fields = self._fields()
        self._expect("FROM")
        object_type = self._name()
        conditions = self._conditions() if self._took("WHERE") else []
        order = self._order() if self._took("ORDER") else None
        limit = self._limit() if self._took("LIMIT") else None
        if self._next.kind != "end":
            raise _unexpected(self._next.text)
        return Statement(tuple(fields), object_type, tuple(conditions), order, limit)

    def _fields(self) -> list[str]:
        fields = [self._name()]
        while self._next.text == ",":
            self._take()
            fields.append(self._name())
            if len(fields) > FIELDS_MAX:
                raise QueryError(MALFORMED, f"there can be at most {FIELDS_MAX} fields")
        return fields

    def _conditions(self) -> list[Condition]:
        conditions = [self._condition()]
        while self._took("AND"):
            conditions.append(self._condition())
            if len(conditions) > CONDITIONS_MAX:
                raise QueryError(MALFORMED, f"there can be at most {CONDITIONS_MAX} conditions")
        return conditions

    def _condition(self) -> Condition:
        field = self._name()
        operator = self._take().text
        if operator not in _OPERATORS:
            raise _unexpected(operator)
        return Condition(field, operator, self._literal())

    def _literal(self) -> Literal:
        kind, text = self._take()
        if kind == "text":
            return _ESCAPE.sub(_unescape, text[1:-1])
        if kind == "number":
            return int(text)
        if kind == "moment":
            try:
                return datetime.fromisoformat(text)
            except ValueError:
                raise _unexpected(text) from None
        if kind == "word" and text.upper() in _CONSTANTS:
            return _CONSTANTS[text.upper()]
        raise _unexpected(text)

    def _order(self) -> Order:
        self._expect("BY")
        field = self._name()
        is_descending = self._took("DESC")
        if not is_descending:
            self._took("ASC")
        return Order(field, is_descending)

    def _limit(self) -> int:
        kind, text = self._take()
        if kind != "number" or not 0 <= int(text) <= LIMIT_MAX:
            raise _unexpected(text)
        return int(text)

    def _name(self) -> str:
        kind, text = self._take()
        if kind != "word" or text.upper() in _RESERVED:
            raise _unexpected(text)
        return text

    def _took(self, word: str) -> bool:
        if self._next.kind != "word" or self._next.text.upper() != word:
            return False
        self._take()
        return True

    def _expect(self, word: str) -> None:
        if not self._took(word):
            raise _unexpected(self._next.text)

    def _take(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token


def _unescape(found: re.Match[str]) -> str:
    if found[1] not in _ESCAPED:
        raise QueryError(MALFORMED, f"unexpected escape in a text: '{found[0]}'")
    return _ESCAPED[found[1]]
