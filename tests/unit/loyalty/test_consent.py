"""A document of MongoDB gives a consent or one class of error, whatever it holds."""

from datetime import UTC, datetime
from typing import Any

import hypothesis
import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from hypothesis import strategies as st

from loyalty import errors
from loyalty.consent import (
    ConsentChannel,
    ConsentDetail,
    ConsentMaster,
    ConsentPurpose,
    ConsentStatus,
    read_detail,
    read_master,
)
from loyalty.errors import (
    ConsentError,
    MissingConsentFieldError,
    UnknownConsentVersionError,
    WrongConsentFieldError,
)

CHANGED_AT = datetime(2026, 11, 28, 10, 0, 0, 123_000, tzinfo=UTC)
UNTOLD = "what-nobody-may-read"

# One document of every version that was ever written. A release may add a line here, never change or remove one.
MASTERS: dict[int, dict[str, Any]] = {
    1: {
        "_id": 7,
        "member_id": "m-1",
        "granted": True,
        "policy_version": "2025-3",
        "changed_at": CHANGED_AT,
        "schema_version": 1,
    },
    2: {
        "_id": 7,
        "member_id": "m-1",
        "status": "expired",
        "policy_version": "2026-1",
        "channel": "call_centre",
        "changed_at": CHANGED_AT,
        "schema_version": 2,
    },
}
DETAIL: dict[str, Any] = {
    "_id": ObjectId("0123456789abcdef01234567"),
    "master_id": 7,
    "purpose": "third_party",
    "is_granted": False,
    "changed_at": CHANGED_AT,
    "schema_version": 1,
}


def test_a_master_of_the_second_version_is_read_as_it_is() -> None:
    """Each field comes through, status and channel as words of their own kind."""
    assert read_master(MASTERS[2]) == ConsentMaster(
        7, "m-1", ConsentStatus.EXPIRED, "2026-1", ConsentChannel.CALL_CENTRE, CHANGED_AT
    )


@pytest.mark.parametrize(("granted", "status"), [(True, ConsentStatus.GRANTED), (False, ConsentStatus.WITHDRAWN)])
def test_a_master_of_the_first_version_is_mapped(granted: bool, status: ConsentStatus) -> None:
    """`granted` becomes a status and the channel is the app, whatever else the document calls so."""
    document = MASTERS[1] | {"granted": granted, "status": "expired", "channel": "web"}
    assert read_master(document) == ConsentMaster(7, "m-1", status, "2025-3", ConsentChannel.APP, CHANGED_AT)


def test_a_detail_is_read_as_it_is() -> None:
    """Each field comes through, and the ids are not looked at."""
    assert read_detail(DETAIL) == ConsentDetail(
        DETAIL["_id"], 7, ConsentPurpose.THIRD_PARTY, is_granted=False, changed_at=CHANGED_AT
    )


def test_fields_of_others_are_left_alone() -> None:
    """What nobody here knows changes nothing."""
    assert read_master(MASTERS[2] | {"note": object()}) == read_master(MASTERS[2])
    assert read_detail(DETAIL | {"note": object()}) == read_detail(DETAIL)


def test_an_id_may_be_null_and_a_reference_may_not() -> None:
    """MongoDB takes null for an id; a detail whose master is null has none."""
    assert read_master(MASTERS[2] | {"_id": None}).document_id is None
    with pytest.raises(MissingConsentFieldError, match=r"^master_id is null$"):
        read_detail(DETAIL | {"master_id": None})


def test_a_long_integer_is_a_version_like_a_short_one() -> None:
    """Which of the two a writer's driver chose says nothing."""
    assert read_master(MASTERS[2] | {"schema_version": Int64(2)}) == read_master(MASTERS[2])


@pytest.mark.parametrize("version", [0, 3, 2.0, True, "2", None, Decimal128("2"), [2]])
def test_another_schema_version_is_an_error(version: object) -> None:
    """A newer one, and what is no whole number, cannot be understood."""
    with pytest.raises(UnknownConsentVersionError, match=r"^schema_version must be 1 or 2$"):
        read_master(MASTERS[2] | {"schema_version": version})
    with pytest.raises(UnknownConsentVersionError, match=r"^schema_version must be 1$"):
        read_detail(DETAIL | {"schema_version": 2})


def needed(version: int | None) -> list[tuple[int | None, str]]:
    """Return the names of the fields of one sample document that are needed to read it."""
    document = DETAIL if version is None else MASTERS[version]
    return [(version, name) for name in document if name not in ("_id", "schema_version")]


@pytest.mark.parametrize(("version", "name"), [*needed(None), *needed(1), *needed(2)])
def test_a_field_that_is_missing_or_null_is_named(version: int | None, name: str) -> None:
    """The error's class is that of a missing field, and its text the field's name and which of the two it is."""
    document = dict(DETAIL if version is None else MASTERS[version])
    read = read_detail if version is None else read_master
    document[name] = None
    with pytest.raises(MissingConsentFieldError, match=f"^{name} is null$"):
        read(document)
    del document[name]
    with pytest.raises(MissingConsentFieldError, match=f"^{name} is missing$"):
        read(document)


@pytest.mark.parametrize(
    ("sample", "read"), [(MASTERS[1], read_master), (MASTERS[2], read_master), (DETAIL, read_detail)]
)
def test_a_document_without_an_id_is_an_error(sample: dict[str, Any], read: Any) -> None:  # noqa: ANN401 - either
    """A document that lost its id on the way is nobody's."""
    document = {name: value for name, value in sample.items() if name != "_id"}
    with pytest.raises(MissingConsentFieldError, match=r"^_id is missing$"):
        read(document)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("member_id", 7),
        ("member_id", UNTOLD),
        ("member_id", "m-1\n"),
        ("member_id", Code("m-1")),
        ("status", UNTOLD),
        ("status", "GRANTED"),
        ("status", True),
        ("status", ["granted"]),
        ("status", Code("granted")),
        ("channel", UNTOLD),
        ("channel", {"app": 1}),
        ("policy_version", ""),
        ("policy_version", UNTOLD * 3),
        ("policy_version", "a\x00b"),
        ("policy_version", "a\nb"),
        ("policy_version", "\ud800"),
        ("policy_version", 2026),
        ("policy_version", b"2026-1"),
        ("changed_at", "2026-11-28T10:00:00Z"),
        ("changed_at", datetime(2026, 11, 28)),  # noqa: DTZ001 - without an offset on purpose
        ("changed_at", DatetimeMS(2**62)),
        ("changed_at", 1_764_324_000),
    ],
)
def test_a_wrong_field_of_a_master_is_named_and_its_value_is_not(name: str, value: object) -> None:
    """Types and rules are told apart from nothing else: one class, the field's name, never what stood there."""
    with pytest.raises(WrongConsentFieldError, match=f"^{name} must be ") as caught:
        read_master(MASTERS[2] | {name: value})
    assert UNTOLD not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("purpose", UNTOLD), ("purpose", 1), ("is_granted", 1), ("is_granted", "yes"), ("changed_at", 0)],
)
def test_a_wrong_field_of_a_detail_is_named_and_its_value_is_not(name: str, value: object) -> None:
    """A flag is true or false, not something that counts as such."""
    with pytest.raises(WrongConsentFieldError, match=f"^{name} must be ") as caught:
        read_detail(DETAIL | {name: value})
    assert UNTOLD not in str(caught.value)


@pytest.mark.parametrize("granted", [1, 0, "true"])
def test_a_wrong_grant_of_the_first_version_is_named(granted: object) -> None:
    """There, too, a flag is true or false."""
    with pytest.raises(WrongConsentFieldError, match=r"^granted must be true or false$"):
        read_master(MASTERS[1] | {"granted": granted})


def test_the_classes_that_are_stored_keep_their_names() -> None:
    """Dead letters hold these names for ever."""
    stored = {
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, ConsentError) and one is not ConsentError
    }
    assert stored == {"UnknownConsentVersionError", "MissingConsentFieldError", "WrongConsentFieldError"}


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
    st.sampled_from([ObjectId("0" * 24), Decimal128("1"), Code("granted"), Binary(b"", 4), DatetimeMS(2**62)]),
)


@hypothesis.given(
    changes=st.dictionaries(st.sampled_from(sorted(MASTERS[1].keys() | MASTERS[2].keys())), ANYTHING),
    version=st.sampled_from([1, 2]),
)
def test_any_document_gives_a_consent_or_a_consent_error(changes: dict[str, Any], version: int) -> None:
    """Nothing that a document holds raises anything else, and the same document gets the same answer."""
    document = MASTERS[version] | changes

    def answer() -> str:
        try:
            return repr(read_master(document))
        except ConsentError as error:
            return repr(error)

    assert answer() == answer()
