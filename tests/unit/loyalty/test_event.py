"""What is written is read again, and what cannot be understood gets one class of error, whatever it is."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import hypothesis
import jsonschema
import pytest
from hypothesis import strategies as st

import loyalty.event
from loyalty import errors
from loyalty.event import (
    MAX_EVENT_BYTES,
    SCHEMA_VERSION,
    CouponEvent,
    CouponSnapshot,
    EventType,
    decode,
    decode_flat,
    encode,
)

SCHEMAS = Path(loyalty.event.__file__).parent / "schemas"
CODE = "0123456789ABCDEF"
KEY = CODE.encode()
EVENT_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ISSUED_AT = datetime(2026, 11, 24, 10, 0, 0, 123_456, tzinfo=UTC)

# One example of every version that was ever published. A release may add a line here, never change or remove one.
PUBLISHED = {
    1: b'{"event_id":"01890a5d-ac96-774b-bcce-b302099a8057","type":"coupon.issued","schema_version":1,'
    b'"occurred_at":"2026-11-24T10:00:00.123456+00:00","coupon":{"code":"0123456789ABCDEF","member_id":"m-1",'
    b'"reward_id":"rw-1","redemption_id":"01890a5d-ac96-774b-bcce-b302099a8057","value_cents":500,"currency":"EUR",'
    b'"issued_at":"2026-11-24T10:00:00.123456+00:00","expires_at":"2027-11-24T10:00:00.123456+00:00","version":1}}',
}


def an_event(**changes: object) -> CouponEvent:
    """Return a good event; arguments replace fields of its coupon."""
    coupon = CouponSnapshot(CODE, "m-1", "rw-1", EVENT_ID, 500, "EUR", ISSUED_AT, ISSUED_AT + timedelta(days=365), 1)
    fields: dict[str, Any] = changes  # Any: a named tuple checks nothing
    return CouponEvent(EVENT_ID, EventType.ISSUED, ISSUED_AT, coupon._replace(**fields))


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:  # Any: JSON
    """Return a good event's JSON after a change."""
    document = json.loads(encode(an_event()))
    change(document)
    return json.dumps(document).encode()


def validator(version: int) -> jsonschema.Draft202012Validator:
    """Return the validator of a published schema."""
    schema = json.loads((SCHEMAS / f"coupon-event.v{version}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def test_every_published_version_has_its_schema_and_its_example() -> None:
    """No version is without its file, and the version written today is the newest of them."""
    versions = {int(path.stem.removeprefix("coupon-event.v")) for path in SCHEMAS.glob("*.json")}
    assert versions == set(PUBLISHED) == set(range(1, SCHEMA_VERSION + 1))


@pytest.mark.parametrize("version", PUBLISHED)
def test_consumer_reads_every_published_version(version: int) -> None:
    """An event as it was published then is valid by its schema and understood today."""
    validator(version).validate(json.loads(PUBLISHED[version]))
    assert decode(PUBLISHED[version], KEY) == an_event()


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
first, last = datetime(2000, 1, 2), datetime(2998, 12, 30)  # noqa: DTZ001 - naive by the library's rule
times = st.datetimes(first, last, timezones=offsets)
snapshots = st.builds(
    CouponSnapshot,
    code=st.from_regex(r"[0-9A-HJKMNP-TV-Z]{16}", fullmatch=True),
    member_id=st.from_regex(r"m-[a-z0-9][a-z0-9-]{0,38}", fullmatch=True),
    reward_id=st.from_regex(r"rw-[a-z0-9][a-z0-9-]{0,38}", fullmatch=True),
    redemption_id=st.none() | st.uuids(),
    value_cents=st.integers(0, 100_000_000_000),
    currency=st.from_regex(r"[A-Z]{3}", fullmatch=True),
    issued_at=times,
    expires_at=times,
    version=st.integers(1, 2**31 - 1),
).filter(lambda coupon: coupon.expires_at > coupon.issued_at)
events = st.builds(
    CouponEvent,
    event_id=st.uuids(),
    type=st.sampled_from(EventType),
    occurred_at=times,
    coupon=snapshots,
    schema_version=st.just(SCHEMA_VERSION),
)


@hypothesis.given(events)
def test_any_event_is_read_as_it_was_written_and_obeys_the_schema(event: CouponEvent) -> None:
    """The producer keeps to the schema, and the consumer gets back the very event."""
    payload = encode(event)
    validator(SCHEMA_VERSION).validate(json.loads(payload))
    read = decode(payload, event.coupon.code.encode())
    assert read == event
    assert read.occurred_at.utcoffset() == event.occurred_at.utcoffset()


def test_flat_event_says_the_same_as_the_event() -> None:
    """The consumer's own form has every field of the event, ids as text."""
    event = an_event()
    flat = decode_flat(encode(event), KEY)
    assert flat == (*event.coupon[:3], str(EVENT_ID), *event.coupon[4:], event.type, str(EVENT_ID), event.occurred_at)


def _set(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update(fields)


def _coupon(**fields: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document["coupon"].update(fields)


WRONG_FIELDS = {
    "event_id no uuid": _set(event_id="x"),
    "event_id upper case": _set(event_id=str(EVENT_ID).upper()),
    "event_id null": _set(event_id=None),
    "event_id with a line end": _set(event_id=f"{EVENT_ID}\n"),
    "field missing": lambda document: document.pop("occurred_at"),
    "field unknown": _set(extra=1),
    "coupon no object": _set(coupon=[]),
    "coupon null": _set(coupon=None),
    "coupon field missing": lambda document: document["coupon"].pop("version"),
    "coupon field unknown": _coupon(extra=1),
    "time without offset": _set(occurred_at="2026-11-24T10:00:00"),
    "time that does not exist": _set(occurred_at="2026-02-30T10:00:00Z"),
    "time too early": _set(occurred_at="1999-12-31T23:59:59Z"),
    "time too late": _coupon(expires_at="3000-01-01T00:00:00Z"),
    "time too early in UTC": _set(occurred_at="2000-01-01T00:00:00+23:59"),
    "issue too early in UTC": _coupon(issued_at="2000-01-01T00:00:00+23:59"),
    "time too late in UTC": _coupon(expires_at="2999-12-31T23:59:59-23:59"),
    "hour 24": _set(occurred_at="2026-11-24T24:00:00Z"),
    "offset of 99 minutes": _coupon(issued_at="2026-11-24T10:00:00+00:99"),
    "time as a number": _set(occurred_at=1_800_000_000),
    "time with a space": _coupon(issued_at="2026-11-24 10:00:00Z"),
    "time naive": _coupon(issued_at="2026-11-24T10:00:00"),
    "code too short": _coupon(code=CODE[1:]),
    "code lower case": _coupon(code=CODE.lower()),
    "code with I": _coupon(code="I" + CODE[1:]),
    "code null": _coupon(code=None),
    "member with NUL": _coupon(member_id="m-1\0"),
    "member too long": _coupon(member_id="m-" + "a" * 40),
    "reward empty": _coupon(reward_id=""),
    "redemption empty": _coupon(redemption_id=""),
    "redemption number": _coupon(redemption_id=7),
    "cents text": _coupon(value_cents="500"),
    "cents true": _coupon(value_cents=True),
    "cents fraction": _coupon(value_cents=500.0),
    "cents negative": _coupon(value_cents=-1),
    "cents too many": _coupon(value_cents=100_000_000_001),
    "cents beyond every integer": _coupon(value_cents=10**40),
    "currency lower case": _coupon(currency="eur"),
    "version zero": _coupon(version=0),
    "version too high": _coupon(version=2**31),
    "version true": _coupon(version=True),
    "ends before it begins": _coupon(expires_at="2026-11-24T10:00:00Z"),
}


@pytest.mark.parametrize("case", WRONG_FIELDS)
def test_wrong_field_is_named_and_not_repeated(case: str) -> None:
    """A field outside its rule is an error whose text names a field and never holds its value."""
    payload = changed(WRONG_FIELDS[case])
    with pytest.raises(errors.WrongFieldError) as raised:
        decode(payload, KEY)
    assert any(name in str(raised.value) for name in ("event", "coupon", "occurred_at"))
    assert CODE[1:] not in str(raised.value)


@pytest.mark.parametrize(
    ("payload", "key", "error"),
    [
        (None, KEY, errors.TombstoneError),
        (b"", KEY, errors.EmptyPayloadError),
        (b" " * (MAX_EVENT_BYTES + 1), KEY, errors.OversizedError),
        (b"{", KEY, errors.NotJsonError),
        (b"\xff\xfe", KEY, errors.NotJsonError),
        (b"NaN", KEY, errors.NotJsonError),
        (b'{"type":"\\ud800"}', KEY, errors.NotJsonError),
        (b"[" * 10_000, KEY, errors.NotJsonError),
        (b"[]", KEY, errors.WrongFieldError),
        (b"7", KEY, errors.WrongFieldError),
        (b"{}", KEY, errors.UnknownSchemaVersionError),
        (changed(_set(schema_version=2)), KEY, errors.UnknownSchemaVersionError),
        (changed(_set(schema_version=True)), KEY, errors.UnknownSchemaVersionError),
        (changed(_set(schema_version="1")), KEY, errors.UnknownSchemaVersionError),
        (changed(_set(type="coupon.eaten")), KEY, errors.UnknownTypeError),
        (changed(_set(type=[])), KEY, errors.UnknownTypeError),
        (encode(an_event()), None, errors.MissingKeyError),
        (encode(an_event()), b"", errors.ContradictingKeyError),
        (encode(an_event()), b"1" + KEY[1:], errors.ContradictingKeyError),
    ],
)
def test_record_that_cannot_be_understood_gets_its_class(
    payload: bytes | None, key: bytes | None, error: type[errors.EventError]
) -> None:
    """Each way of being poison has one class of error, which the dead letter will bear."""
    with pytest.raises(error):
        decode(payload, key)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@hypothesis.given(st.sampled_from(CouponSnapshot._fields + CouponEvent._fields), json_values)
def test_any_value_in_any_field_is_an_event_or_an_event_error(name: str, value: object) -> None:
    """Nothing that JSON can hold in a field leads to any other exception."""
    document = json.loads(encode(an_event()))
    (document if name in document else document["coupon"])[name] = value
    try:
        decode(json.dumps(document).encode(), KEY)
    except errors.EventError:
        return


@hypothesis.given(st.binary(max_size=200), st.none() | st.binary(max_size=20))
def test_any_bytes_are_an_event_or_an_event_error(payload: bytes, key: bytes | None) -> None:
    """Nothing that a record can hold leads to any other exception."""
    with pytest.raises(errors.EventError):
        decode(payload, key)


# The reader is stricter where a schema cannot say it: order of times, 500.0 for 500, the calendar, an instant. The
# line end is this validator's: its patterns are Python's, whose `$` lets one through, while JSON Schema's does not.
BEYOND_A_SCHEMA = {
    "ends before it begins",
    "cents fraction",
    "time that does not exist",
    "time too early in UTC",
    "issue too early in UTC",
    "time too late in UTC",
    "event_id with a line end",
}


@pytest.mark.parametrize("case", WRONG_FIELDS)
def test_reader_refuses_what_the_schema_refuses(case: str) -> None:
    """The schema calls invalid what the reader refuses, but for the named cases."""
    document = json.loads(changed(WRONG_FIELDS[case]))
    assert validator(1).is_valid(document) == (case in BEYOND_A_SCHEMA)
