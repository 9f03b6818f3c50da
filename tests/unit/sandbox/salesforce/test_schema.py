"""What Salesforce says of each kind of wrong value, field by field."""

import pytest

from sandbox.salesforce.schema import DETAIL, MASTER, NUMBER_MAX, RecordError
from tests.support.salesforce import detail, master

WRONG_TYPE = "INVALID_TYPE_ON_FIELD_IN_RECORD"


def test_values_of_the_right_kind_are_taken() -> None:
    """A record as it is meant to be has no errors, of either object."""
    assert MASTER.errors(master("x")) == []
    assert DETAIL.errors(detail("x", "y")) == []


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("ExternalId__c", "x" * 256, "STRING_TOO_LONG"),
        ("ExternalId__c", 7, WRONG_TYPE),
        ("MemberId__c", "m" * 81, "STRING_TOO_LONG"),
        ("MemberId__c", {"a": 1}, WRONG_TYPE),
        ("Status__c", "maybe", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ("Status__c", ["granted"], WRONG_TYPE),
        ("PolicyVersion__c", "1" * 41, "STRING_TOO_LONG"),
        ("Channel__c", "fax", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
        ("ChangedAt__c", "2026-11-28T10:00:00", WRONG_TYPE),
        ("ChangedAt__c", "2026-11-28", WRONG_TYPE),
        ("ChangedAt__c", "2026-13-28T10:00:00Z", WRONG_TYPE),
        ("ChangedAt__c", 1_795_000_000, WRONG_TYPE),
        ("Deleted__c", 1, WRONG_TYPE),
        ("Deleted__c", None, WRONG_TYPE),
        ("Version__c", True, WRONG_TYPE),
        ("Version__c", 1.5, WRONG_TYPE),
        ("Version__c", "1", WRONG_TYPE),
        ("Version__c", NUMBER_MAX + 1, "NUMBER_OUTSIDE_VALID_RANGE"),
        ("Version__c", -NUMBER_MAX - 1, "NUMBER_OUTSIDE_VALID_RANGE"),
        ("Nothing__c", "x", "INVALID_FIELD"),
        ("Id", "a00000000000001AAA", "INVALID_FIELD"),
    ],
)
def test_a_wrong_value_is_named_with_its_field(field: str, value: object, code: str) -> None:
    """One wrong value gives one error, with its status code and its field."""
    (error,) = MASTER.errors(master("x") | {field: value})
    assert (error.status_code, error.fields) == (code, (field,))


@pytest.mark.parametrize("value", ["m-1", {"ExternalId__c": 1}, {"Name": "x"}, {"ExternalId__c": "x", "Name": "y"}, {}])
def test_a_relation_names_its_master_by_external_id_and_nothing_else(value: object) -> None:
    """Whatever is not one external id is no relation."""
    (error,) = DETAIL.errors(detail("x", "y", Master__r=value))
    assert (error.status_code, error.fields) == (WRONG_TYPE, ("Master__r",))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ExternalId__c", "x" * 255),
        ("MemberId__c", "m" * 80),
        ("Version__c", NUMBER_MAX),
        ("Version__c", -NUMBER_MAX),
        ("Version__c", 0),
        ("Status__c", None),
        ("ChangedAt__c", "2026-11-28T10:00:00.123+0000"),
        ("ChangedAt__c", "2026-11-28T10:00:00-05:30"),
    ],
)
def test_a_value_at_its_limit_is_taken(field: str, value: object) -> None:
    """The longest text, the greatest numbers, a null and each way to write an offset are right."""
    assert MASTER.errors(master("x") | {field: value}) == []


def test_all_wrong_values_of_a_record_are_told() -> None:
    """Two wrong values give two errors."""
    errors = MASTER.errors(master("x", Status__c="maybe", Nothing__c=1))
    assert sorted(error.status_code for error in errors) == ["INVALID_FIELD", "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"]


def test_messages_are_those_of_salesforce_and_bounded() -> None:
    """The text of an error is what Salesforce says, and repeats at most 80 characters of a value."""
    assert MASTER.errors({"Status__c": "maybe"}) == [
        RecordError(
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "Status__c: bad value for restricted picklist field: maybe",
            ("Status__c",),
        )
    ]
    (error,) = MASTER.errors({"MemberId__c": "m" * 100_000})
    assert error.message == f"MemberId__c: data value too large: {'m' * 80}... (max length=80)"


def test_an_error_is_bounded_whatever_is_sent() -> None:
    """Of a thousand unknown fields ten are told, and of a value a thousand levels deep nothing is repeated."""
    assert len(MASTER.errors({f"x{number}": 1 for number in range(1_000)})) == 10
    deep: object = "x"
    for _ in range(1_020):
        deep = [deep]
    (error,) = MASTER.errors({"MemberId__c": deep})
    assert error.message == "MemberId__c: value not of required type: [...]"


def test_a_new_record_needs_what_the_table_says() -> None:
    """A member and a version for a master, a master and a version for a detail; a checkbox is false by itself."""
    assert MASTER.required == ("MemberId__c", "Version__c")
    assert DETAIL.required == ("Master__r", "Version__c")
    assert MASTER.defaults == {"Deleted__c": False}
    assert DETAIL.defaults == {"Granted__c": False, "Deleted__c": False}
