"""Which queries are read, and into what; whatever has another shape is refused."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.salesforce.errors import QueryError
from sandbox.salesforce.soql import (
    CHARACTERS_MAX,
    CONDITIONS_MAX,
    FIELDS_MAX,
    Condition,
    Literal,
    Order,
    Statement,
    read_statement,
)


def test_every_part_of_a_query_is_read() -> None:
    """Fields, object, conditions, order and limit come as they were sent."""
    text = "SELECT Id, A__r.B__c FROM C__c WHERE Id != 'x' AND N__c>=-5 ORDER BY N__c DESC LIMIT 10"
    conditions = (Condition("Id", "!=", "x"), Condition("N__c", ">=", -5))
    assert read_statement(text) == Statement(("Id", "A__r.B__c"), "C__c", conditions, Order("N__c", True), 10)


def test_words_are_read_in_any_case_and_over_any_space() -> None:
    """Lower case, line breaks, and no space where a sign tells two words apart."""
    text = "\tselect Id,Name\r\nfrom A where B='x'and C=True order by Id asc limit 0 "
    conditions = (Condition("B", "=", "x"), Condition("C", "=", True))
    assert read_statement(text) == Statement(("Id", "Name"), "A", conditions, Order("Id", False), 0)


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("''", ""),
        ("'FROM'", "FROM"),
        (r"'it\'s \"a\" \\ \n\r\t\b\f'", 'it\'s "a" \\ \n\r\t\b\f'),
        ("'ü 語 😀'", "ü 語 😀"),
        ("0", 0),
        ("-7", -7),
        ("9" * 18, 10**18 - 1),
        ("TRUE", True),
        ("false", False),
        ("Null", None),
        ("2026-11-28T10:00:00Z", datetime(2026, 11, 28, 10, tzinfo=UTC)),
        (
            "2026-11-28T10:00:00.123-05:30",
            datetime(2026, 11, 28, 10, 0, 0, 123_000, timezone(-timedelta(hours=5, minutes=30))),
        ),
        ("2026-11-28T10:00:00+0100", datetime(2026, 11, 28, 10, tzinfo=timezone(timedelta(hours=1)))),
    ],
)
def test_each_kind_of_literal_is_read(text: str, literal: Literal) -> None:
    """Texts with their escapes, numbers, times, booleans and null."""
    (condition,) = read_statement("SELECT Id FROM A WHERE B = %".replace("%", text)).conditions
    assert (condition.literal, type(condition.literal)) == (literal, type(literal))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "SELECT",
        "SELECT FROM A",
        "SELECT , FROM A",
        "SELECT Id, FROM A",
        "SELECT Id Name FROM A",
        "SELECT * FROM A",
        "SELECT COUNT() FROM A",
        "SELECT FIELDS(ALL) FROM A LIMIT 1",
        "SELECT (SELECT Id FROM B) FROM A",
        "SELECT A.B.C FROM A",
        "SELECT 'Id' FROM A",
        "SELECT Id",
        "SELECT Id FROM",
        "SELECT Id FROM 1",
        "SELECT Id FROM A, B",
        "SELECT Id FROM A a",
        "SELECT Id FROM A;",
        "SELECT Id FROM A WHERE",
        "SELECT Id FROM A WHERE Id",
        "SELECT Id FROM A WHERE Id =",
        "SELECT Id FROM A WHERE Id = B",
        "SELECT Id FROM A WHERE Id == 'x'",
        "SELECT Id FROM A WHERE Id <> 'x'",
        "SELECT Id FROM A WHERE Id LIKE 'x%'",
        "SELECT Id FROM A WHERE Id IN ('x')",
        "SELECT Id FROM A WHERE NOT Id = 'x'",
        "SELECT Id FROM A WHERE (Id = 'x')",
        "SELECT Id FROM A WHERE Id = 'x' OR Id = 'y'",
        "SELECT Id FROM A WHERE Id = 'x' AND",
        "SELECT Id FROM A WHERE 'x' = Id",
        "SELECT Id FROM A WHERE Id = 'x",
        r"SELECT Id FROM A WHERE Id = 'x\'",
        r"SELECT Id FROM A WHERE Id = '\q'",
        'SELECT Id FROM A WHERE Id = "x"',
        "SELECT Id FROM A WHERE N = 1.5",
        "SELECT Id FROM A WHERE N = 1e5",
        "SELECT Id FROM A WHERE N = 12x",
        "SELECT Id FROM A WHERE N = 1000000000000000000",
        "SELECT Id FROM A WHERE N = --1",
        "SELECT Id FROM A WHERE T = TODAY",
        "SELECT Id FROM A WHERE T = 2026-11-28",
        "SELECT Id FROM A WHERE T = 2026-11-28T10:00:00",
        "SELECT Id FROM A WHERE T = 2026-13-28T10:00:00Z",
        "SELECT Id FROM A WHERE T = 2026-11-28T10:00:00 01:00",
        "SELECT Id FROM A ORDER Id",
        "SELECT Id FROM A ORDER BY",
        "SELECT Id FROM A ORDER BY Id, Name",
        "SELECT Id FROM A ORDER BY Id NULLS LAST",
        "SELECT Id FROM A LIMIT",
        "SELECT Id FROM A LIMIT -1",
        "SELECT Id FROM A LIMIT 2147483648",
        "SELECT Id FROM A LIMIT 1 OFFSET 1",
        "SELECT Id FROM A LIMIT 1 WHERE Id = 'x'",
        "SELECT Id FROM A LIMIT 1 ORDER BY Id",
        "SELECT Id FROM A GROUP BY Id",
        "SELECT ID FROM A FOR VIEW",
        "SELECT \u00cfd FROM A",
        "SELECT Id FROM A WHERE N = \u0663",
        "\x00",
    ],
)
def test_another_shape_is_malformed(text: str) -> None:
    """What Salesforce understands beyond it is refused like what nobody understands."""
    with pytest.raises(QueryError) as caught:
        read_statement(text)
    assert caught.value.code == "MALFORMED_QUERY"


def test_what_was_not_expected_is_told_and_bounded() -> None:
    """The message names it, and never more than 80 characters of it."""
    with pytest.raises(QueryError, match=r"^unexpected token: 'Name'$"):
        read_statement("SELECT Id Name FROM A")
    with pytest.raises(QueryError, match=r"^unexpected end$"):
        read_statement("SELECT Id FROM")
    with pytest.raises(QueryError, match=f"^unexpected token: '{'x' * 80}'$"):
        read_statement(f"SELECT Id {'x' * 1_000}")


def test_a_query_is_bounded() -> None:
    """At the limits of characters, fields and conditions a query is read, and one beyond each is malformed."""
    fits = [
        " ".join(["SELECT", ",".join(["A"] * FIELDS_MAX), "FROM A"]),
        " ".join(["SELECT A FROM A WHERE", " AND ".join(["A=1"] * CONDITIONS_MAX)]),
        "SELECT A FROM A".ljust(CHARACTERS_MAX),
        "SELECT A FROM A LIMIT 2147483647",
    ]
    beyond = [fits[0].replace("A", "A,A", 1), f"{fits[1]} AND A=1", f"{fits[2]} ", "SELECT A FROM A LIMIT 2147483648"]
    assert all(read_statement(text).fields for text in fits)
    for text in beyond:
        with pytest.raises(QueryError):
            read_statement(text)


_PIECES = ["SELECT ", " FROM ", " WHERE ", " AND ", " ORDER BY ", " LIMIT ", "Id", "A.b", "'", "\\", "\\'", "-", "."]
_PIECES += ["1", "9" * 30, "2026-11-28T10:00:00Z", "=", "<=", "!", ",", "(", " ", "\n", "true", "\x00", "é"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(_PIECES)).map("".join)))
def test_any_text_is_read_or_malformed(text: str) -> None:
    """Nothing but a statement or MALFORMED_QUERY comes of it."""
    try:
        assert read_statement(text).fields
    except QueryError as error:
        assert error.code == "MALFORMED_QUERY"  # noqa: PT017 - only where it is refused
