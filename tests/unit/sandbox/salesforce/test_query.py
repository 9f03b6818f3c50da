"""What queries find, against a plain model; their pages, and what is refused."""

import operator
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.salesforce.answer import Answer
from sandbox.salesforce.applied_log import Content
from sandbox.salesforce.query import OPEN_MAX, RECORDS_PER_PAGE_MAX, Queries
from sandbox.salesforce.records import Records
from sandbox.salesforce.schema import DETAIL, MASTER
from tests.support.salesforce import detail, master


def open_records(directory: Path) -> Records:
    """Open records whose log is in this directory."""
    return Records(directory / "log", records_max=50_000, log_bytes_max=2**30)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    """Give records that are empty."""
    opened = open_records(tmp_path)
    yield opened
    opened.close()


def content(answer: Answer) -> Content:
    """Return what an answer to a query that was understood holds."""
    assert answer.status == 200, answer.body
    found: Content = orjson.loads(answer.body)
    return found


def refusal(answer: Answer) -> tuple[int, str, str]:
    """Return status, code and message of an answer to a query that was not."""
    (error,) = orjson.loads(answer.body)
    return answer.status, error["errorCode"], error["message"]


def put_masters(records: Records, *numbers: int) -> None:
    """Let masters of these numbers be there."""
    for start in range(0, len(numbers), 1_000):
        records.upsert(MASTER, [master(f"x{number:05}", number) for number in numbers[start : start + 1_000]])


class Row(NamedTuple):
    """A detail as the model knows it; what is blank is None."""

    ExternalId__c: str
    Purpose__c: str | None
    Granted__c: bool
    ChangedAt__c: datetime | None
    Version__c: int
    master: str | None


class Wanted(NamedTuple):
    """A query as the model knows it."""

    fields: list[str]
    conditions: list[tuple[str, str, Any]]
    order: tuple[str, bool] | None
    limit: int | None


MASTER_IDS = ("m", "M")
RELATION = "Master__r.ExternalId__c"
FIELDS = ("ExternalId__c", "Purpose__c", "Granted__c", "ChangedAt__c", "Version__c", RELATION)
OPERATORS = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
instants = st.builds(
    lambda seconds, hours: datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=hours))) + timedelta(seconds=seconds),
    st.integers(-1, 1),
    st.integers(-1, 1),
)
rows = st.builds(
    Row,
    ExternalId__c=st.text("aB'\\é \n", min_size=1, max_size=3),
    Purpose__c=st.sampled_from(["email", "sms", None]),
    Granted__c=st.booleans(),
    ChangedAt__c=st.none() | instants,
    Version__c=st.integers(-2, 2),
    master=st.sampled_from([*MASTER_IDS, None]),
)
LITERALS: dict[str, st.SearchStrategy[Any]] = {
    "ExternalId__c": st.text("aB'\\é \n", max_size=3),
    "Purpose__c": st.sampled_from(["email", "EMAIL", "sms", "post", "", None]),
    "Granted__c": st.booleans() | st.none(),
    "ChangedAt__c": instants | st.none(),
    "Version__c": st.integers(-3, 3) | st.none(),
    RELATION: st.sampled_from([*MASTER_IDS, "n", None]),
}


@st.composite
def condition(draw: st.DrawFn) -> tuple[str, str, Any]:
    """Draw a condition that makes sense."""
    field = draw(st.sampled_from(FIELDS))
    literal = draw(LITERALS[field])
    is_ordered = literal not in (None, "") and field != "Granted__c"
    return field, draw(st.sampled_from([*OPERATORS] if is_ordered else ["=", "!="])), literal


queries = st.builds(
    Wanted,
    fields=st.lists(st.sampled_from(FIELDS), min_size=1, unique=True),
    conditions=st.lists(condition(), max_size=3),
    order=st.none() | st.tuples(st.sampled_from(FIELDS), st.booleans()),
    limit=st.none() | st.integers(0, 6),
)


def value_of(row: Row, field: str) -> Any:  # noqa: ANN401 - any value
    """Return a value as the model compares it."""
    return folded(field, row.master if field == RELATION else getattr(row, field))


def folded(field: str, value: Any) -> Any:  # noqa: ANN401 - any value
    """Take the case off, where it does not count, and let an empty text be blank."""
    if value == "":
        return None
    return value.lower() if field == "Purpose__c" and value is not None else value


def meets(row: Row, field: str, sign: str, literal: Any) -> bool:  # noqa: ANN401 - any value
    """Say whether a row meets a condition."""
    own, other = value_of(row, field), folded(field, literal)
    if sign in ("=", "!="):
        return bool(OPERATORS[sign](own, other))
    return own is not None and bool(OPERATORS[sign](own, other))


def model(there: list[Row], wanted: Wanted) -> list[Row]:
    """Return what the query is to find, in its order."""
    found = [row for row in there if all(meets(row, *one) for one in wanted.conditions)]
    if wanted.order is not None:
        field, is_descending = wanted.order
        blank = [row for row in found if value_of(row, field) is None]
        filled = [row for row in found if value_of(row, field) is not None]
        found = blank + sorted(filled, key=lambda row: value_of(row, field), reverse=is_descending)
    return found[: wanted.limit]


def as_text(value: Any) -> str:  # noqa: ANN401 - any value
    """Write a literal."""
    if isinstance(value, str):
        for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n")):
            value = value.replace(plain, escaped)
        return f"'{value}'"
    if isinstance(value, datetime):
        return value.isoformat()
    return "null" if value is None else str(value)


def as_soql(wanted: Wanted) -> str:
    """Write a query."""
    text = " ".join(["SELECT", ", ".join(wanted.fields), "FROM ConsentDetail__c"])
    if wanted.conditions:
        text += " WHERE " + " AND ".join(f"{field}{sign}{as_text(value)}" for field, sign, value in wanted.conditions)
    if wanted.order is not None:
        text += f" ORDER BY {wanted.order[0]} {'DESC' if wanted.order[1] else 'ASC'}"
    return text if wanted.limit is None else f"{text} LIMIT {wanted.limit}"


def as_record(row: Row) -> Content:
    """Return what is sent for a row; only what is created as deleted may be without a master."""
    relation = None if row.master is None else {"ExternalId__c": row.master}
    changed_at = None if row.ChangedAt__c is None else row.ChangedAt__c.isoformat()
    fields = {**row._asdict(), "ChangedAt__c": changed_at, "Master__r": relation, "Deleted__c": True}
    del fields["master"]
    return fields


def as_shown(row: Row, field: str) -> Any:  # noqa: ANN401 - what JSON can hold
    """Return what the answer is to hold of a field."""
    if field == RELATION:
        return row.master
    return as_record(row)[field]


@given(st.lists(rows, max_size=12, unique_by=lambda row: row.ExternalId__c), queries)
def test_a_query_finds_what_a_plain_model_finds(there: list[Row], wanted: Wanted) -> None:
    """The same records in the same order with the same values, and their number, whatever is there and asked for."""
    with TemporaryDirectory() as directory:
        records = open_records(Path(directory))
        try:
            records.upsert(MASTER, [master(external_id) for external_id in MASTER_IDS])
            results = records.upsert(DETAIL, [as_record(row) for row in there])
            assert not any(result.errors for result in results)
            found = content(Queries(records).run(as_soql(wanted), 60))
        finally:
            records.close()
    shown = [
        [
            one["Master__r"] and one["Master__r"]["ExternalId__c"] if field == RELATION else one[field]
            for field in wanted.fields
        ]
        for one in found["records"]
    ]
    assert shown == [[as_shown(row, field) for field in wanted.fields] for row in model(there, wanted)]
    assert (found["totalSize"], found["done"]) == (len(shown), True)


def test_an_answer_has_the_documented_form(records: Records) -> None:
    """Type and address of each record and of its master, the fields by their own names, and no more."""
    (one,) = records.upsert(MASTER, [master("m")])
    results = records.upsert(DETAIL, [detail("d", "m"), {"ExternalId__c": "e", "Version__c": 1, "Deleted__c": True}])
    found = content(Queries(records).run("select id, VERSION__C, master__r.externalid__c from consentdetail__c", 61))
    base = "/services/data/v61.0/sobjects"
    urls = [f"{base}/ConsentDetail__c/{result.id}" for result in results]
    relation = {
        "attributes": {"type": "ConsentMaster__c", "url": f"{base}/ConsentMaster__c/{one.id}"},
        "ExternalId__c": "m",
    }
    shown = [
        {
            "attributes": {"type": "ConsentDetail__c", "url": url},
            "Id": result.id,
            "Version__c": 1,
            "Master__r": of,
        }
        for result, url, of in zip(results, urls, (relation, None), strict=True)
    ]
    assert found == {"totalSize": 2, "done": True, "records": shown}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SELECT Id", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account", "INVALID_TYPE"),
        ("SELECT Name FROM ConsentMaster__c", "INVALID_FIELD"),
        ("SELECT Master__r FROM ConsentDetail__c", "INVALID_FIELD"),
        ("SELECT Master__r.MemberId__c FROM ConsentDetail__c", "INVALID_FIELD"),
        ("SELECT Master__r.ExternalId__c FROM ConsentMaster__c", "INVALID_FIELD"),
        ("SELECT Id FROM ConsentMaster__c WHERE Name = 'x'", "INVALID_FIELD"),
        ("SELECT Id FROM ConsentMaster__c ORDER BY Name", "INVALID_FIELD"),
        ("SELECT Id, ID FROM ConsentMaster__c", "MALFORMED_QUERY"),
        ("SELECT Id FROM ConsentMaster__c WHERE Deleted__c > FALSE", "MALFORMED_QUERY"),
        ("SELECT Id FROM ConsentMaster__c WHERE Version__c < NULL", "MALFORMED_QUERY"),
        ("SELECT Id FROM ConsentMaster__c WHERE MemberId__c >= ''", "MALFORMED_QUERY"),
        ("SELECT Id FROM ConsentMaster__c WHERE Version__c = '1'", "INVALID_FIELD"),
        ("SELECT Id FROM ConsentMaster__c WHERE Version__c = TRUE", "INVALID_FIELD"),
        ("SELECT Id FROM ConsentMaster__c WHERE MemberId__c = 1", "INVALID_FIELD"),
        ("SELECT Id FROM ConsentMaster__c WHERE Deleted__c = 0", "INVALID_FIELD"),
        ("SELECT Id FROM ConsentMaster__c WHERE ChangedAt__c = '2026-11-28T10:00:00Z'", "INVALID_FIELD"),
    ],
)
def test_a_query_that_makes_no_sense_is_400_with_its_code(records: Records, text: str, code: str) -> None:
    """Whatever is asked of which object; what does not fit its field is told as the field's."""
    put_masters(records, 1)
    assert refusal(Queries(records).run(text, 60))[:2] == (400, code)


def test_what_is_unknown_is_named(records: Records) -> None:
    """The messages name the field, the object and the type that is wanted, in Salesforce's words."""
    queries = Queries(records)
    assert (
        "No such column 'Nme__c' on entity 'ConsentMaster__c'"
        in refusal(queries.run("SELECT Nme__c FROM ConsentMaster__c", 60))[2]
    )
    assert "sObject type 'Acount' is not supported" in refusal(queries.run("SELECT Id FROM Acount", 60))[2]
    assert refusal(queries.run("SELECT Id FROM ConsentMaster__c WHERE Version__c = '1'", 60))[2] == (
        "value of filter criterion for field 'Version__c' must be of type double and should not be enclosed in quotes"
    )


def test_pages_have_two_thousand_records_at_most(records: Records) -> None:
    """4,001 records come in three pages, each once and in order; 2,000 come in one."""
    put_masters(records, *range(4_001))
    queries = Queries(records)
    page = content(queries.run("SELECT Version__c FROM ConsentMaster__c ORDER BY Version__c DESC", 60))
    pages = [page]
    while not page["done"]:
        page = content(queries.more(page["nextRecordsUrl"].rpartition("/")[2], 60))
        pages.append(page)
    assert [len(page["records"]) for page in pages] == [2_000, 2_000, 1]
    assert [one["Version__c"] for page in pages for one in page["records"]] == list(range(4_000, -1, -1))
    assert {page["totalSize"] for page in pages} == {4_001}
    urls = [page.get("nextRecordsUrl", "") for page in pages]
    locator = urls[0].removesuffix("-2000")
    assert urls == [f"{locator}-2000", f"{locator}-4000", ""]
    assert content(queries.run("SELECT Id FROM ConsentMaster__c LIMIT 2000", 60))["done"] is True


def test_later_pages_show_what_was_there_at_the_beginning(records: Records) -> None:
    """A record that is changed or made between two pages is as it was, and is not there."""
    put_masters(records, *range(2_001))
    queries = Queries(records)
    first = content(queries.run("SELECT Version__c, Status__c FROM ConsentMaster__c WHERE Status__c = 'granted'", 60))
    records.upsert(MASTER, [master("x02000", 9_000, Status__c="withdrawn"), master("new", 9_001)])
    second = content(queries.more(first["nextRecordsUrl"].rpartition("/")[2], 60))
    assert [(one["Version__c"], one["Status__c"]) for one in second["records"]] == [(2_000, "granted")]


def test_a_query_can_go_on_behind_an_id(records: Records) -> None:
    """Pages of one query each, behind the last id of the one before, show each record once; also one made meanwhile."""
    put_masters(records, *range(250))
    found: list[str] = []
    behind = ""
    text = "SELECT Id, ExternalId__c FROM ConsentMaster__c % ORDER BY Id LIMIT 100"
    while page := content(Queries(records).run(text.replace("%", behind), 60))["records"]:
        found += [record["ExternalId__c"] for record in page]
        behind = f"WHERE ExternalId__c != NULL AND Id > '{page[-1]['Id']}'"
        if len(found) == 100:
            put_masters(records, 250)
    assert found == [f"x{number:05}" for number in range(251)]


def test_a_page_can_be_asked_for_again(records: Records) -> None:
    """Whoever lost the answer to the last page gets it once more."""
    put_masters(records, *range(2_001))
    queries = Queries(records)
    locator = content(queries.run("SELECT Id FROM ConsentMaster__c", 60))["nextRecordsUrl"].rpartition("/")[2]
    assert queries.more(locator, 60) == queries.more(locator, 60)


def test_a_locator_of_nothing_is_404(records: Records) -> None:
    """An unknown query, and a place that is none of the query's, are INVALID_QUERY_LOCATOR."""
    put_masters(records, *range(2_001))
    queries = Queries(records)
    name = content(queries.run("SELECT Id FROM ConsentMaster__c", 60))["nextRecordsUrl"].rpartition("/")[2][:-5]
    assert content(queries.more(f"{name}-2000", 60))["done"] is True
    for wrong in (
        name,
        f"{name}-",
        f"{name}-0",
        f"{name}-2001",
        f"{name}--1",
        f"{name}-\u0662",
        f"{name}-{'9' * 5_000}",
        f"{name[:-1]}-2000",
        "-2000",
        "x",
    ):
        assert refusal(queries.more(wrong, 60)) == (404, "INVALID_QUERY_LOCATOR", "invalid query locator")


def test_only_the_newest_queries_stay_open(records: Records) -> None:
    """With one more open query than there may be, the oldest one is gone, and the others are not."""
    put_masters(records, *range(2_001))
    queries = Queries(records)
    locators = [
        content(queries.run("SELECT Id FROM ConsentMaster__c", 60))["nextRecordsUrl"].rpartition("/")[2]
        for _ in range(OPEN_MAX + 1)
    ]
    assert [queries.more(locator, 60).status for locator in locators] == [404, *[200] * OPEN_MAX]


def test_a_query_of_one_page_takes_no_place(records: Records) -> None:
    """However many small queries come, an open one stays open."""
    put_masters(records, *range(RECORDS_PER_PAGE_MAX + 1))
    queries = Queries(records)
    locator = content(queries.run("SELECT Id FROM ConsentMaster__c", 60))["nextRecordsUrl"].rpartition("/")[2]
    for _ in range(2 * OPEN_MAX):
        queries.run("SELECT Id FROM ConsentMaster__c LIMIT 2000", 60)
    assert queries.more(locator, 60).status == 200


def test_times_are_compared_as_instants(records: Records) -> None:
    """One moment written with two offsets is the same one, and null is neither before nor after it."""
    sent = ["2026-11-28T10:00:00Z", "2026-11-28T11:00:00+0100", "2026-11-28T09:59:59.999+00:00", None]
    records.upsert(MASTER, [master(str(place), ChangedAt__c=at) for place, at in enumerate(sent)])
    at = datetime(2026, 11, 28, 10, tzinfo=UTC).isoformat()
    for sign, found in (("=", ["0", "1"]), ("<", ["2"]), (">", []), ("!=", ["2", "3"]), (">=", ["0", "1"])):
        text = "SELECT ExternalId__c FROM ConsentMaster__c WHERE ChangedAt__c % %"
        shown = content(Queries(records).run(text.replace("% %", f"{sign} {at}"), 60))["records"]
        assert [one["ExternalId__c"] for one in shown] == found


def test_what_is_blank_comes_first_in_both_directions(records: Records) -> None:
    """Null is before all values, and what is equal stays in the order of its creation."""
    sent = ["2026-11-28T10:00:00Z", None, "2026-11-27T10:00:00Z", "2026-11-28T11:00:00+01:00", None]
    records.upsert(MASTER, [master(str(place), ChangedAt__c=at) for place, at in enumerate(sent)])
    for direction, found in (("ASC", "14203"), ("DESC", "14032")):
        text = "SELECT ExternalId__c FROM ConsentMaster__c ORDER BY ChangedAt__c %".replace("%", direction)
        shown = content(Queries(records).run(text, 60))["records"]
        assert "".join(one["ExternalId__c"] for one in shown) == found


def test_an_empty_text_is_null(records: Records) -> None:
    """It is shown as null, and found by null and by an empty text alike."""
    records.upsert(MASTER, [master("a", PolicyVersion__c=""), master("b")])
    for literal in ("NULL", "''"):
        text = "SELECT PolicyVersion__c FROM ConsentMaster__c WHERE PolicyVersion__c = %".replace("%", literal)
        (shown,) = content(Queries(records).run(text, 60))["records"]
        assert shown["PolicyVersion__c"] is None
