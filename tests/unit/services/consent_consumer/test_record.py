"""What a document is called in Salesforce, and which of two changes is told to be the newer one."""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID

import bson
import hypothesis
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import strategies as st

from loyalty.consent import ConsentChannel, ConsentDetail, ConsentMaster, ConsentPurpose, ConsentStatus
from sandbox.salesforce.schema import DETAIL, MASTER, ObjectType
from services.consent_consumer.errors import VersionOverflowError
from services.consent_consumer.record import (
    DETAIL_OBJECT,
    EXTERNAL_ID_CHARACTERS_MAX,
    MASTER_OBJECT,
    Record,
    deleted_record,
    detail_record,
    external_id,
    master_record,
    version,
)

CHANGED_AT = datetime(2026, 11, 28, 10, 0, 0, 123_000, tzinfo=UTC)
AN_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
HASHED = "h:"


@pytest.mark.parametrize(
    ("document_id", "expected"),
    [
        (ObjectId("0123456789ABCDEF01234567"), "o:0123456789abcdef01234567"),
        ("m-1", "s:m-1"),
        ("", "s:"),
        ("1", "s:1"),
        ("Größe", "s:Größe"),
        ("o:0123456789abcdef01234567", "s:o:0123456789abcdef01234567"),
        (1, "i:1"),
        (-7, "i:-7"),
        (2**63 - 1, "i:9223372036854775807"),
        (AN_ID, f"u:{AN_ID}"),
        (Binary(AN_ID.bytes, 4), f"u:{AN_ID}"),
    ],
)
def test_common_ids_can_be_read(document_id: object, expected: str) -> None:
    """Each is its tag and itself."""
    assert external_id(document_id) == expected


@pytest.mark.parametrize(
    "document_id",
    [
        None,
        True,
        0.5,
        2**53 + 0.0,
        1e300,
        float("nan"),
        Decimal128("0.1"),
        b"m-1",
        Binary(AN_ID.bytes, 3),
        Binary(b"short", 4),
        CHANGED_AT,
        {"a": 1},
        MinKey(),
        Timestamp(1, 1),
        Code("m-1"),
        "x" * 254,
        "é" * 127,
        "a ",
        "a\x00",
        "a\n",
        "e\u0301",
    ],
)
def test_every_other_id_is_a_digest_that_fits(document_id: object) -> None:
    """The tag says so, unless the number is a whole one; what could be spoilt on the way is a digest, too."""
    expected = "i:9007199254740992" if document_id == 2**53 else HASHED
    found = external_id(document_id)
    assert found.startswith(expected)
    assert len(found) <= EXTERNAL_ID_CHARACTERS_MAX


def test_a_digest_never_changes() -> None:
    """Records in Salesforce bear it, so another release must find them by it."""
    assert external_id({"a": 1, "b": [0.5, "x"]}) == (
        "h:00b8e181f01a4826fc86daa10bfa7ed14badffca3f628fdbe33851ebd864b7f2"
    )


NUMBERS: st.SearchStrategy[Fraction] = st.one_of(
    st.sampled_from([0, 1, -1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]).map(Fraction),
    st.sampled_from([Fraction(1, 2), Fraction(1, 10)]),
    st.integers(-(2**63), 2**63 - 1).map(Fraction),
    st.floats(allow_nan=False, allow_infinity=False).map(Fraction),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**20), max_value=10**20).map(Fraction),
    st.tuples(st.integers(-(10**34) + 1, 10**34 - 1), st.integers(-330, 330)).map(
        lambda pair: Fraction(pair[0]) * Fraction(10) ** pair[1]
    ),
)


def spellings(number: Fraction) -> list[object]:
    """Return a number in each way in which BSON holds exactly this one."""
    found: list[object] = []
    if number.denominator == 1 and -(2**63) <= number < 2**63:
        found += [int(number), Int64(int(number))]
    try:
        double = float(number)
    except OverflowError:
        double = float("inf")
    if abs(double) != float("inf") and Fraction(double) == number:
        found += [double] if double else [0.0, -0.0]
    return found + decimals(number)


def decimals(number: Fraction) -> list[object]:
    """Return a number as a Decimal128 with few digits and with many, as far as it is one."""
    exponent = 0
    while number.denominator != 1 and exponent > -6_176:
        number, exponent = number * 10, exponent - 1
    while number and number.denominator == 1 and number % 10 == 0:
        number, exponent = number / 10, exponent + 1
    if number.denominator != 1 or abs(number) >= 10**34:
        return []
    digits = int(number)
    found: list[object] = []
    for _ in range(3):
        if abs(digits) < 10**34 and -6_176 <= exponent <= 6_111:
            found.append(Decimal128(Decimal((int(digits < 0), tuple(map(int, str(abs(digits)))), exponent))))
        digits, exponent = digits * 10, exponent - 1
    return [*found, Decimal128("-0"), Decimal128("0E-6176")] if not number else found


@hypothesis.given(number=NUMBERS)
def test_one_number_has_one_external_id_whatever_its_type(number: Fraction) -> None:
    """int32, int64, double and Decimal128 of a value, with any number of zeros, are one id in MongoDB, and here."""
    assert len({external_id(each) for each in spellings(number)}) <= 1


@hypothesis.given(first=NUMBERS, second=NUMBERS)
def test_two_numbers_have_two_external_ids(first: Fraction, second: Fraction) -> None:
    """However close they are: not one spelling of the one is taken for the other."""
    hypothesis.assume(first != second)
    ids = {external_id(each) for each in spellings(first)} & {external_id(each) for each in spellings(second)}
    assert not ids


def test_neighbours_are_told_apart() -> None:
    """A tenth is not the double next to it, and a large integer not the double that it would be rounded to."""
    assert external_id(0.1) != external_id(Decimal128("0.1"))
    assert external_id(Decimal128("0.50")) == external_id(0.5)
    assert external_id(2**53 + 1) != external_id(float(2**53))
    assert external_id(float("inf")) == external_id(Decimal128("Infinity")) != external_id(float("-inf"))
    assert (
        len({external_id(each) for each in (float("nan"), -float("nan"), Decimal128("NaN"), Decimal128("sNaN"))}) == 1
    )


def test_the_greatest_and_the_least_numbers_are_told_apart_and_have_one_id_each() -> None:
    """At both ends of Decimal128 zeros count for nothing and digits for all."""
    for first, same, other in (
        ("1E+6144", "1000E+6141", "1.1E+6144"),
        ("1E-6170", "10E-6171", "1E-6171"),
        ("-1E+6144", "-10E+6143", "1E+6144"),
    ):
        assert external_id(Decimal128(first)) == external_id(Decimal128(same)) != external_id(Decimal128(other))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS.map(spellings).filter(bool).flatmap(st.sampled_from),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.binary(min_size=16, max_size=16).map(lambda raw: Binary(raw, 3)),
    st.uuids(),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.builds(Timestamp, st.integers(0, 3), st.integers(0, 3)),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - as told
        lambda time: time.replace(microsecond=time.microsecond // 1_000 * 1_000)
    ),
    st.sampled_from([MinKey(), MaxKey(), Regex("a", "i"), Code("a"), Code("a", {"b": 1}), DBRef("c", 1)]),
)
NAMES = st.sampled_from(["a", "b", "$ref"])
IDS = st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3))


def mongo_value(value: object) -> object:
    """Return what MongoDB compares of a value, written down anew: types by name, numbers as exact fractions."""
    if isinstance(value, bool) or value is None:
        return ("constant", value)
    if isinstance(value, int | float | Decimal128):
        exact = value.to_decimal() if isinstance(value, Decimal128) else value
        return ("number", Fraction(exact))
    if isinstance(value, Mapping | DBRef):
        document = value.as_doc() if isinstance(value, DBRef) else value
        return ("document", tuple((name, mongo_value(each)) for name, each in document.items()))
    if isinstance(value, list):
        return ("array", tuple(map(mongo_value, value)))
    if isinstance(value, bytes | UUID):
        binary = Binary(value.bytes, 4) if isinstance(value, UUID) else value
        return ("binary", getattr(binary, "subtype", 0), bytes(binary))
    if isinstance(value, Code):
        return ("code", str(value), None if value.scope is None else mongo_value(value.scope))
    return (type(value).__name__, str(value))


def respelled(value: object, draw: Any) -> object:  # noqa: ANN401 - Hypothesis' own type is private
    """Return an equal value with its numbers written in another way."""
    if isinstance(value, Mapping):
        return {name: respelled(each, draw) for name, each in value.items()}
    if isinstance(value, list):
        return [respelled(each, draw) for each in value]
    if isinstance(value, int | float | Decimal128) and not isinstance(value, bool):
        return draw(
            st.sampled_from(spellings(Fraction(value.to_decimal() if isinstance(value, Decimal128) else value)))
        )
    return value


@hypothesis.given(first=IDS, second=IDS)
def test_external_ids_are_equal_exactly_when_the_ids_are(first: object, second: object) -> None:
    """Over values of all types, nested ones too, both ways."""
    assert (external_id(first) == external_id(second)) is (mongo_value(first) == mongo_value(second))


@hypothesis.given(data=st.data(), document_id=IDS)
def test_an_equal_id_written_differently_is_the_same(data: st.DataObject, document_id: object) -> None:
    """Numbers inside a document and an array count by their value as well."""
    other = respelled(document_id, data.draw)
    assert mongo_value(other) == mongo_value(document_id)
    assert external_id(other) == external_id(document_id)


@hypothesis.given(document_id=IDS)
def test_an_external_id_survives_the_way_through_bson(document_id: object) -> None:
    """What a driver decodes gives the id that what was written gives; it fits the field, and JSON."""
    options = bson.CodecOptions[dict[str, Any]](tz_aware=True, uuid_representation=4)
    found = bson.decode(bson.encode({"_id": document_id}, codec_options=options), codec_options=options)["_id"]
    assert external_id(found) == external_id(document_id)
    assert len(external_id(document_id).encode()) <= EXTERNAL_ID_CHARACTERS_MAX
    assert external_id(document_id).isprintable()


TIMES = st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 999_999))


@hypothesis.given(first=TIMES, second=TIMES)
def test_versions_are_ordered_as_cluster_times_are(first: Timestamp, second: Timestamp) -> None:
    """Earlier, equal and later come out as they went in."""
    assert (version(first) < version(second)) is (first < second)
    assert (version(first) == version(second)) is (first == second)


def test_the_last_version_there_can_be_is_exact_as_a_double() -> None:
    """Salesforce computes with doubles: the greatest version comes back from one, and so does the one before it."""
    last = version(Timestamp(2**32 - 1, 999_999))
    assert last < 2**53
    for each in (last, last - 1):
        assert int(struct.unpack("d", struct.pack("d", each))[0]) == each


@pytest.mark.parametrize("increment", [1_000_000, 2**32 - 1])
def test_an_increment_beyond_a_second_is_refused(increment: int) -> None:
    """It would be the version of a later change."""
    with pytest.raises(VersionOverflowError, match=str(increment)):
        version(Timestamp(1, increment))
    assert version(Timestamp(1, 999_999)) + 1 == version(Timestamp(2, 0))


def accepted(kind: ObjectType, record: Record) -> bool:
    """Say whether the stand-in takes each field, and whether each field that is needed is there."""
    errors = kind.errors(record)
    assert not errors, errors
    return all(record.get(name) is not None for name in kind.required)


def test_a_master_becomes_a_record_that_salesforce_knows() -> None:
    """Every field of the object is sent, none else, and each value obeys its rule."""
    master = ConsentMaster(7, "m-1", ConsentStatus.GRANTED, "2026-1", ConsentChannel.CALL_CENTRE, CHANGED_AT)
    record = master_record(master, 5)
    assert record == {
        "ExternalId__c": "i:7",
        "MemberId__c": "m-1",
        "Status__c": "granted",
        "PolicyVersion__c": "2026-1",
        "Channel__c": "call_centre",
        "ChangedAt__c": "2026-11-28T10:00:00.123+00:00",
        "Deleted__c": False,
        "Version__c": 5,
    }
    assert (MASTER_OBJECT, record.keys()) == (MASTER.name, MASTER.fields.keys())
    assert accepted(MASTER, record)


def test_a_detail_becomes_a_record_that_names_its_master() -> None:
    """The reference is the external id that the master's own record bears, however the id is spelt in the detail."""
    detail = ConsentDetail("d", Decimal128("7.0"), ConsentPurpose.EMAIL, is_granted=True, changed_at=CHANGED_AT)
    record = detail_record(detail, 5)
    assert record == {
        "ExternalId__c": "s:d",
        "Master__r": {"ExternalId__c": "i:7"},
        "Purpose__c": "email",
        "Granted__c": True,
        "ChangedAt__c": "2026-11-28T10:00:00.123+00:00",
        "Deleted__c": False,
        "Version__c": 5,
    }
    assert (DETAIL_OBJECT, record.keys()) == (DETAIL.name, DETAIL.fields.keys())
    assert accepted(DETAIL, record)


def test_a_document_that_is_gone_becomes_a_mark() -> None:
    """Id, mark and version, and nothing else: there is nothing else to be known."""
    assert deleted_record("d", 5) == {"ExternalId__c": "s:d", "Deleted__c": True, "Version__c": 5}


@pytest.mark.parametrize("kind", [*ConsentStatus, *ConsentChannel, *ConsentPurpose])
def test_every_word_of_a_consent_is_one_of_salesforce(kind: str) -> None:
    """No value of ours is missing in the picklists there."""
    words = [MASTER.fields["Status__c"], MASTER.fields["Channel__c"], DETAIL.fields["Purpose__c"]]
    assert any(field.check(str(kind)) is None for field in words)
