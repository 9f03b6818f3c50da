"""Upserts by external id: order, versions, required fields, masters, duplicates, all or none, limits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.salesforce.applied_log import Content
from sandbox.salesforce.errors import AppliedLogError
from sandbox.salesforce.records import ROLLED_BACK, VERSION_RULE, Records, Result, record_id
from sandbox.salesforce.schema import DETAIL, MASTER, RecordError
from tests.support.salesforce import detail, master


def open_records(directory: Path, *, records_max: int = 1_000, log_bytes_max: int = 2**20) -> Records:
    """Open records whose log is in this directory."""
    return Records(directory / "log", records_max=records_max, log_bytes_max=log_bytes_max)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    """Give records that are empty."""
    opened = open_records(tmp_path)
    yield opened
    opened.close()


def codes(results: list[Result]) -> list[str | None]:
    """Return of each result the first status code; None for one that was stored."""
    return [result.errors[0].status_code if result.errors else None for result in results]


def test_a_record_is_created_once_and_then_updated(records: Records) -> None:
    """The second upsert of an external id updates the record that the first one made, and keeps its id."""
    (first,) = records.upsert(MASTER, [master("a", 1)])
    (second,) = records.upsert(MASTER, [{"ExternalId__c": "a", "Status__c": "withdrawn", "Version__c": 2}])
    assert (first.is_created, second.is_created, first.id == second.id) == (True, False, True)
    assert records.of("ConsentMaster__c")["a"].fields == master("a", 2, Status__c="withdrawn")
    assert len(records) == 1


def test_an_older_version_never_overwrites_a_newer_one(records: Records) -> None:
    """A version below the stored one is refused by the rule and changes nothing."""
    records.upsert(MASTER, [master("a", 5, Status__c="withdrawn")])
    (result,) = records.upsert(MASTER, [master("a", 4)])
    assert result.errors == (VERSION_RULE,)
    assert records.of("ConsentMaster__c")["a"].fields == master("a", 5, Status__c="withdrawn")
    assert len(records.log) == 1


def test_the_same_version_is_applied_again(records: Records) -> None:
    """An equal version is a replay: it is applied, and the log shows it."""
    records.upsert(MASTER, [master("a", 5)])
    assert codes(records.upsert(MASTER, [master("a", 5, Status__c="expired")])) == [None]
    assert records.of("ConsentMaster__c")["a"].fields["Status__c"] == "expired"
    assert len(records.log) == 2


@pytest.mark.parametrize(("version", "code"), [(None, "FIELD_CUSTOM_VALIDATION_EXCEPTION"), ("left out", None)])
def test_a_blank_version_counts_as_zero_and_one_left_out_as_unchanged(
    records: Records, version: object, code: str | None
) -> None:
    """A null version is older than 5; an update that does not speak of the version is applied."""
    records.upsert(MASTER, [master("a", 5)])
    fields: Content = {"ExternalId__c": "a", "Version__c": version}
    if version == "left out":
        del fields["Version__c"]
    assert codes(records.upsert(MASTER, [fields])) == [code]
    assert records.of("ConsentMaster__c")["a"].fields["Version__c"] == 5


def test_required_fields_are_asked_of_new_records_alone(records: Records) -> None:
    """A new record without its member is refused and names the field; an update without it is not."""
    (result,) = records.upsert(MASTER, [{"ExternalId__c": "a", "MemberId__c": "", "Version__c": 1}])
    missing = RecordError("REQUIRED_FIELD_MISSING", "Required fields are missing: [MemberId__c]", ("MemberId__c",))
    assert result.errors == (missing,)
    records.upsert(MASTER, [master("a", 1)])
    assert codes(records.upsert(MASTER, [{"ExternalId__c": "a", "Version__c": 2}])) == [None]


def test_a_record_created_as_deleted_needs_only_its_version(records: Records) -> None:
    """A tombstone may come before anything else of its record, but not without a version."""
    tombstone: Content = {"ExternalId__c": "a", "Deleted__c": True, "Version__c": 3}
    assert codes(records.upsert(MASTER, [tombstone])) == [None]
    assert records.of("ConsentMaster__c")["a"].fields == tombstone
    assert codes(records.upsert(MASTER, [{"ExternalId__c": "b", "Deleted__c": True}])) == ["REQUIRED_FIELD_MISSING"]


def test_a_soft_delete_keeps_the_record(records: Records) -> None:
    """An update that sets Deleted__c leaves the other fields as they were."""
    records.upsert(MASTER, [master("a", 1)])
    records.upsert(MASTER, [{"ExternalId__c": "a", "Deleted__c": True, "Version__c": 2}])
    assert records.of("ConsentMaster__c")["a"].fields == master("a", 2, Deleted__c=True)


def test_a_detail_needs_a_master_that_is_there(records: Records) -> None:
    """A relation to nothing is refused in the words of Salesforce, and taken once the master is there."""
    (result,) = records.upsert(DETAIL, [detail("d", "a")])
    message = "Foreign key external ID: a not found for field ExternalId__c in entity ConsentMaster__c"
    assert result.errors == (RecordError("INVALID_FIELD", message),)
    records.upsert(MASTER, [master("a")])
    assert codes(records.upsert(DETAIL, [detail("d", "a")])) == [None]


def test_a_checkbox_is_false_where_nothing_was_sent(records: Records) -> None:
    """A new record holds false in each checkbox that its call did not speak of, and an update leaves it as it is."""
    records.upsert(MASTER, [{"ExternalId__c": "a", "MemberId__c": "m-1", "Version__c": 1}])
    relation = {"ExternalId__c": "a"}
    records.upsert(DETAIL, [{"ExternalId__c": "d", "Master__r": relation, "Granted__c": True, "Version__c": 1}])
    records.upsert(DETAIL, [{"ExternalId__c": "d", "Version__c": 2}])
    assert records.of("ConsentMaster__c")["a"].fields["Deleted__c"] is False
    fields = records.of("ConsentDetail__c")["d"].fields
    assert (fields["Granted__c"], fields["Deleted__c"]) == (True, False)


def test_objects_do_not_share_external_ids(records: Records) -> None:
    """A master and a detail with one external id are two records, with ids of different prefixes."""
    (one,) = records.upsert(MASTER, [master("a")])
    (other,) = records.upsert(DETAIL, [detail("a", "a")])
    assert (str(one.id)[:3], str(other.id)[:3]) == ("a00", "a01")
    assert len(records) == 2


@pytest.mark.parametrize("external_id", [None, ""])
def test_a_record_without_external_id_is_refused(records: Records, external_id: str | None) -> None:
    """Neither null nor an empty text is an external id, and such records are no duplicates of each other."""
    fields = master("a", ExternalId__c=external_id)
    assert codes(records.upsert(MASTER, [fields, dict(fields)])) == ["MISSING_ARGUMENT", "MISSING_ARGUMENT"]


def test_all_records_with_a_doubled_external_id_are_refused(records: Records) -> None:
    """Both bearers of an external id are refused, the others of the call are not."""
    results = records.upsert(MASTER, [master("a", 1), master("b"), master("a", 2)])
    assert codes(results) == ["DUPLICATE_VALUE", None, "DUPLICATE_VALUE"]
    assert results[0].errors[0].message == "Duplicate external id specified: a"
    assert set(records.of("ConsentMaster__c")) == {"b"}


def test_results_come_in_the_order_of_the_records(records: Records) -> None:
    """Of good and bad records in turn each has its own result at its own place."""
    sent = [master(f"x{number}", Status__c="granted" if number % 3 else "maybe") for number in range(200)]
    results = records.upsert(MASTER, sent)
    assert [bool(result.errors) for result in results] == [number % 3 == 0 for number in range(200)]
    held = records.of("ConsentMaster__c")
    assert [result.id for result in results if not result.errors] == [record.id for record in held.values()]
    assert list(held) == [f"x{number}" for number in range(200) if number % 3]


def test_all_or_none_applies_nothing_when_one_is_refused(records: Records) -> None:
    """With one bad record the others say that they were rolled back; without one all are applied."""
    results = records.upsert(MASTER, [master("a"), master("b", Status__c="maybe"), master("c")], all_or_none=True)
    assert codes(results) == [
        ROLLED_BACK.status_code,
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
        ROLLED_BACK.status_code,
    ]
    assert (len(records), len(records.log)) == (0, 0)
    assert codes(records.upsert(MASTER, [master("a"), master("b")], all_or_none=True)) == [None, None]


def test_a_fault_refuses_before_the_record_is_judged(records: Records) -> None:
    """What `refuse` says is the record's error, also of a record that would be refused anyway."""
    error = RecordError("UNABLE_TO_LOCK_ROW", "busy")
    results = records.upsert(
        MASTER, [master("a"), master("b", Status__c="maybe")], refuse=lambda one: error if one == "b" else None
    )
    assert [result.errors for result in results] == [(), (error,)]


def test_one_record_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    """Beyond the limit new records are refused one by one, and known ones are still updated."""
    records = open_records(tmp_path, records_max=2)
    results = records.upsert(MASTER, [master("a"), master("b"), master("c")])
    assert codes(results) == [None, None, "STORAGE_LIMIT_EXCEEDED"]
    assert codes(records.upsert(MASTER, [master("a", 2), master("d")])) == [None, "STORAGE_LIMIT_EXCEEDED"]
    records.close()


def test_a_call_that_the_log_has_no_room_for_applies_nothing(tmp_path: Path) -> None:
    """Without its line in the log a call changes no record, and the next smaller one is applied."""
    records = open_records(tmp_path, log_bytes_max=1_024)
    with pytest.raises(AppliedLogError, match="1024 bytes"):
        records.upsert(MASTER, [master(f"x{number}") for number in range(10)])
    assert (len(records), len(records.log), (tmp_path / "log").stat().st_size) == (0, 0, 0)
    assert codes(records.upsert(MASTER, [master("a")])) == [None]
    records.close()


def test_a_page_shows_records_in_the_order_of_their_creation(records: Records) -> None:
    """Pages follow one another without a gap or a double, whatever is updated."""
    records.upsert(MASTER, [master(f"x{number}") for number in range(7)])
    records.upsert(MASTER, [master("x0", 2)])
    pages = [records.page("ConsentMaster__c", after, 3) for after in (0, 3, 6, 7)]
    assert [[record.fields["ExternalId__c"] for record in page] for page in pages] == [
        ["x0", "x1", "x2"],
        ["x3", "x4", "x5"],
        ["x6"],
        [],
    ]


@pytest.mark.parametrize(
    ("prefix", "number", "expected"),
    [
        ("a00", 1, "a00000000000001AAA"),
        ("a00", 61, "a0000000000000zAAA"),
        ("a0B", 10, "a0B00000000000AEAQ"),
        ("00190000001p", 99_651, "00190000001pPvHAAU"),
    ],
)
def test_an_id_has_the_check_digits_of_salesforce(prefix: str, number: int, expected: str) -> None:
    """Each of the last three characters tells which of five letters are capital; the last one is Salesforce's own."""
    assert record_id(prefix, number) == expected


def test_ids_are_never_the_same(records: Records) -> None:
    """Records of one call and of later ones all have ids of their own."""
    results = [*records.upsert(MASTER, [master(f"x{n}") for n in range(200)]), *records.upsert(MASTER, [master("y")])]
    assert len({result.id for result in results}) == 201
