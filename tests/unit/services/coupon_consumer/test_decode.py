"""Every record of a chunk ends up on one of two sides."""

import hypothesis
from hypothesis import strategies as st

from loyalty.event import encode
from services.coupon_consumer.decode import Decoded, headers_of
from services.coupon_consumer.event_row import newest
from tests.support.coupon_events import cancelled, some_event
from tests.support.fake_kafka_client import record


def test_events_and_poison_are_told_apart_in_order() -> None:
    """Each event keeps its record beside it; poison keeps its record, its class and the rule it broke."""
    events = [some_event(), some_event()]
    good = [record(0, 10 * index, encode(event), event.coupon.code.encode()) for index, event in enumerate(events)]
    bad = record(0, 5, b"{", b"k")
    decoded = Decoded()
    decoded.add([good[0], bad, good[1]])
    assert [event.code for event in decoded.rows] == [event.coupon.code for event in events]
    assert decoded.records == good
    assert [(each.record, each.error_class) for each in decoded.poison] == [(bad, "NotJsonError")]
    assert decoded.poison[0].error_detail == "the payload is not JSON in UTF-8"


@hypothesis.given(st.lists(st.tuples(st.none() | st.binary(max_size=50), st.none() | st.binary(max_size=9))))
def test_no_record_is_left_out_whatever_it_holds(contents: list[tuple[bytes | None, bytes | None]]) -> None:
    """Events and poison together are exactly the records of the chunk."""
    records = [record(0, offset, value, key) for offset, (value, key) in enumerate(contents)]
    decoded = Decoded()
    decoded.add(records)
    found = decoded.records + [each.record for each in decoded.poison]
    assert sorted(str(each.offset()) for each in found) == sorted(str(each.offset()) for each in records)
    assert len(decoded.rows) == len(decoded.records)


def test_newest_keeps_the_first_of_the_highest_version_of_each_coupon() -> None:
    """One event a coupon is left, whatever the order."""
    one, other = some_event(), some_event()
    end = cancelled(one)
    doubled = end._replace(coupon=end.coupon._replace(value_cents=1))
    chunk = [
        record(0, offset, encode(event), event.coupon.code.encode())
        for offset, event in enumerate([one, end, doubled, other, one])
    ]
    decoded = Decoded()
    decoded.add(chunk)
    kept = newest(decoded.rows)
    assert [(row.code, row.version, row.value_cents) for row in kept] == [
        (one.coupon.code, "2", "500"),
        (other.coupon.code, "1", "500"),
    ]


def test_headers_come_in_order_with_doubles() -> None:
    """Empty values are kept; a record without headers has none, which is not the same as unreadable ones."""
    known = record(0, 1)
    known.set_headers([("a", b"1"), ("b", None), ("a", b"2")])
    assert headers_of(known) == [("a", b"1"), ("b", None), ("a", b"2")]
    assert list(headers_of(record(0, 1)) or ()) == []
    assert headers_of(record(0, 1)) is not None
