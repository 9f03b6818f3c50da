"""Which faults there can be, which calls they meet, and when they are over."""

from typing import Any

import pytest

from sandbox.salesforce.fault import (
    DESCRIPTIONS,
    FAULTS_MAX,
    Endpoint,
    Fault,
    FaultKind,
    Faults,
    read_fault,
)

UPSERT, TOKEN, QUERY = Endpoint.UPSERT, Endpoint.TOKEN, Endpoint.QUERY


def lock(**parameters: Any) -> Fault:  # noqa: ANN401 - parameters
    """Return a fault that refuses records."""
    return Fault(kind=FaultKind.RECORD, code="UNABLE_TO_LOCK_ROW", **parameters)


def refused(faults: Faults, *external_ids: str, object_type: str = "ConsentMaster__c") -> list[str]:
    """Return which of a call's records are refused."""
    found = faults.record_faults(object_type)
    if found is None:
        return []
    bad = [external_id for external_id in external_ids if found.refuse(external_id) is not None]
    found.close()
    return bad


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": FaultKind.SLOW}, "seconds must"),
        ({"kind": FaultKind.SLOW, "seconds": 0.0}, "seconds must"),
        ({"kind": FaultKind.SLOW, "seconds": float("nan")}, "seconds must"),
        ({"kind": FaultKind.SLOW, "seconds": 601.0}, "seconds must"),
        ({"kind": FaultKind.RESET, "seconds": 1.0}, "seconds belongs to slow"),
        ({"kind": FaultKind.RESET, "calls": 0}, "calls must"),
        ({"kind": FaultKind.RESET, "object_type": "Account"}, "object_type must"),
        ({"kind": FaultKind.RESET, "object_type": "ConsentMaster__c", "endpoint": TOKEN}, "object_type must"),
        ({"kind": FaultKind.RESET, "object_type": "ConsentMaster__c", "endpoint": QUERY}, "object_type must"),
        ({"kind": FaultKind.LIMIT, "retry_after": "1"}, "retry_after belongs to throttled and unavailable"),
        ({"kind": FaultKind.UNAVAILABLE, "retry_after": "1\r\nx: y"}, "retry_after must"),
        ({"kind": FaultKind.UNAVAILABLE, "retry_after": "x" * 256}, "retry_after must"),
        ({"kind": FaultKind.DENIED}, "endpoint must be token"),
        ({"kind": FaultKind.DENIED, "endpoint": TOKEN, "status": 403}, "status must"),
        ({"kind": FaultKind.NOT_UNIQUE, "endpoint": TOKEN}, "endpoint must be upsert"),
        ({"kind": FaultKind.NOT_UNIQUE, "endpoint": QUERY}, "endpoint must be upsert"),
        ({"kind": FaultKind.RECORD, "code": "X", "every": 2, "endpoint": QUERY}, "endpoint must be upsert"),
        ({"kind": FaultKind.EXPIRED, "endpoint": TOKEN}, "endpoint must be upsert or query for expired"),
        ({"kind": FaultKind.EXPIRED, "after_apply": True}, "after_apply must"),
        ({"kind": FaultKind.RECORD, "every": 2}, "code must"),
        ({"kind": FaultKind.RECORD, "code": "lower", "every": 2}, "code must"),
        ({"kind": FaultKind.RECORD, "code": "X"}, "every or external_ids"),
        ({"kind": FaultKind.RECORD, "code": "X", "every": 2, "external_ids": ("a",)}, "every or external_ids"),
        ({"kind": FaultKind.RECORD, "code": "X", "every": 0}, "every must"),
        ({"kind": FaultKind.RECORD, "code": "X", "external_ids": ()}, "external_ids must"),
        ({"kind": FaultKind.RECORD, "code": "X", "external_ids": ("x" * 256,)}, "external_ids must"),
        ({"kind": FaultKind.RECORD, "code": "X", "external_ids": ("x",) * 201}, "external_ids must"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(parameters: dict[str, Any], message: str) -> None:
    """The error names the parameter and its rule."""
    with pytest.raises(ValueError, match=message):
        Fault(**parameters)


def test_a_fault_is_read_from_json_strictly() -> None:
    """Numbers are no texts, names are known ones, and lists are taken for what they are."""
    text = b'{"kind":"record","code":"UNABLE_TO_LOCK_ROW","external_ids":["a","b"],"calls":2,"every":null}'
    assert read_fault(text) == lock(external_ids=("a", "b"), calls=2)
    for wrong, message in [
        (b'{"kind":"reset","calls":"2"}', "calls"),
        (b'{"kind":"reset","call":2}', "call: "),
        (b'{"kind":"rest"}', "kind"),
        (b"{}", "kind"),
        (b'{"kind":"slow"}', "^seconds must be above 0"),
        (b"no json", "JSON"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_fault(wrong)


def test_every_kind_is_described() -> None:
    """A page that lists the kinds leaves none out."""
    assert set(DESCRIPTIONS) == set(FaultKind)


def test_a_fault_meets_the_calls_it_is_for() -> None:
    """Endpoint, object and time decide: another endpoint, object or the time before the work meets nothing."""
    faults = Faults()
    fault = Fault(kind=FaultKind.RESET, object_type="ConsentMaster__c", after_apply=True)
    faults.switch_on(fault)
    assert faults.take(UPSERT, "ConsentMaster__c", after_apply=True) == [fault]
    assert faults.take(UPSERT, "ConsentMaster__c", after_apply=False) == []
    assert faults.take(UPSERT, "ConsentDetail__c", after_apply=True) == []
    assert faults.take(TOKEN, None, after_apply=True) == []


def test_a_fault_is_over_after_its_calls() -> None:
    """Two calls meet it and the third does not; one without a number goes on until it is switched off."""
    faults = Faults()
    faults.switch_on(Fault(kind=FaultKind.RESET, calls=2))
    assert [len(faults.take(UPSERT, None, after_apply=False)) for _ in range(4)] == [1, 1, 0, 0]
    assert len(faults) == 0
    number = faults.switch_on(Fault(kind=FaultKind.RESET))
    assert all(faults.take(UPSERT, None, after_apply=False) for _ in range(100))
    assert (faults.switch_off(number), faults.switch_off(number)) == (True, False)
    assert not faults.take(UPSERT, None, after_apply=False)


def test_the_first_fault_that_ends_a_call_is_the_last_one_it_meets() -> None:
    """What comes behind it in the order of switching on is neither met nor counted; delays before it are."""
    faults = Faults()
    slow = Fault(kind=FaultKind.SLOW, seconds=1)
    limit = Fault(kind=FaultKind.LIMIT, calls=1)
    for fault in (slow, limit, Fault(kind=FaultKind.RESET, calls=1), slow):
        faults.switch_on(fault)
    assert faults.take(UPSERT, None, after_apply=False) == [slow, limit]
    assert [(one.fault.kind, one.hits) for one in faults] == [
        (FaultKind.SLOW, 1),
        (FaultKind.RESET, 0),
        (FaultKind.SLOW, 0),
    ]


def test_every_nth_record_is_counted_over_calls() -> None:
    """Of five and then four records each third is refused: the third, the sixth and the ninth."""
    faults = Faults()
    faults.switch_on(lock(every=3))
    assert refused(faults, "a", "b", "c", "d", "e") == ["c"]
    assert refused(faults, "f", "g", "h", "i") == ["f", "i"]


def test_named_records_are_refused_and_a_call_without_them_does_not_count() -> None:
    """With one call to go, a call for other records or another object leaves it on, and the first hit ends it."""
    faults = Faults()
    faults.switch_on(lock(external_ids=("b", "c"), calls=1, object_type="ConsentMaster__c"))
    assert refused(faults, "a", "d") == []
    assert refused(faults, "b", object_type="ConsentDetail__c") == []
    assert refused(faults, "a", "b", "c") == ["b", "c"]
    assert refused(faults, "b") == []


def test_a_record_is_refused_with_the_words_of_salesforce() -> None:
    """A known code brings its message, an unknown one says what it is."""
    faults = Faults()
    faults.switch_on(lock(external_ids=("a",)))
    faults.switch_on(Fault(kind=FaultKind.RECORD, code="SOMETHING_NEW", every=1))
    found = faults.record_faults("ConsentMaster__c")
    assert found is not None
    errors = [found.refuse("a"), found.refuse("b")]
    assert [(error.status_code, error.message) for error in errors if error is not None] == [
        ("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record"),
        ("SOMETHING_NEW", "The sandbox was asked for SOMETHING_NEW"),
    ]


def test_there_are_only_so_many_faults() -> None:
    """One more than the limit is refused until one is switched off."""
    faults = Faults()
    numbers = [faults.switch_on(Fault(kind=FaultKind.RESET)) for _ in range(FAULTS_MAX)]
    with pytest.raises(ValueError, match="switch one off"):
        faults.switch_on(Fault(kind=FaultKind.RESET))
    faults.switch_off(numbers[0])
    assert faults.switch_on(Fault(kind=FaultKind.RESET)) not in numbers
    faults.clear()
    assert list(faults) == []
