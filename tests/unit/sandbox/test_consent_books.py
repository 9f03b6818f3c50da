"""The consents' books agree with whatever an honest consumer may have left, and with nothing else."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.consent_books import ConsentBooks
from sandbox.consent_document import DETAILS, MASTERS
from tests.support.document_books import Consents, Outcome

KEPT, CHANGED, GONE, OLD = "s:kept", "o:0123456789abcdef01234567", "i:42", "s:old"
SMS, POST = "u:00000000-0000-4000-8000-000000000001", "i:7"


def _differences(consents: Consents) -> list[str]:
    return list(ConsentBooks(consents.record(), consents.holdings()).differences())


def _consents() -> Consents:
    """Return consents of each kind: kept, changed, deleted and of the first version, and a detail kept and one gone."""
    consents = Consents()
    for name in (KEPT, CHANGED, GONE):
        consents.put_master(name)
    consents.put_detail(SMS, KEPT)
    consents.put_detail(POST, KEPT, purpose="post")
    consents.put_master(CHANGED, status="withdrawn", channel="branch")
    old = consents.put_master(OLD)
    del old["status"], old["channel"]
    old |= {"granted": True, "schema_version": 1}
    consents.write(MASTERS, OLD, old)
    consents.write(DETAILS, POST, None)
    consents.write(MASTERS, GONE, None)
    return consents


def test_consents_in_order_have_no_difference() -> None:
    """What was written, changed and deleted is in MongoDB and in Salesforce as it was acknowledged."""
    assert _differences(_consents()) == []


def test_document_that_came_and_went_before_anyone_looked_needs_no_record() -> None:
    """Of a document that is gone there may be no record at all."""
    consents = _consents()
    consents.records[MASTERS].remove(consents.record_of(MASTERS, GONE))
    assert _differences(consents) == []


def _lose_a_document(consents: Consents) -> None:
    del consents.stored[MASTERS][CHANGED]
    consents.record_of(MASTERS, CHANGED)["Deleted__c"] = True


def _lose_a_change(consents: Consents) -> None:
    before, record = consents.stored[DETAILS][SMS], dict(consents.record_of(DETAILS, SMS))
    consents.write(DETAILS, SMS, {**before, "is_granted": False})
    consents.stored[DETAILS][SMS] = before
    consents.record_of(DETAILS, SMS).update(record)


def _keep_a_deleted_document(consents: Consents) -> None:
    consents.stored[MASTERS][GONE] = dict(consents.stored[MASTERS][KEPT])
    consents.record_of(MASTERS, GONE).update(consents.record_of(MASTERS, KEPT), ExternalId__c=GONE)


def _do_a_refused_write(consents: Consents) -> None:
    content = consents.stored[DETAILS][SMS]
    write = consents.write(DETAILS, SMS, {**content, "is_granted": False}, Outcome.LOST_AND_DONE)
    consents.outcomes[write.number] = False


def _undo_an_acknowledged_write_by_an_older_one(consents: Consents) -> None:
    before = consents.stored[DETAILS][SMS]
    consents.write(DETAILS, SMS, {**before, "purpose": "push"}, Outcome.LOST_AND_NOT_DONE)
    consents.write(DETAILS, SMS, {**before, "purpose": "email"})
    consents.stored[DETAILS][SMS] = {**before, "purpose": "push"}
    consents.record_of(DETAILS, SMS)["Purpose__c"] = "push"


def _answer_what_nobody_wrote(consents: Consents) -> None:
    consents.outcomes[99] = True


def _put_aside(consents: Consents) -> None:
    consents.dead_letters = 1


def _lose_a_record(consents: Consents) -> None:
    consents.records[MASTERS].remove(consents.record_of(MASTERS, KEPT))


def _double_a_record(consents: Consents) -> None:
    consents.records[MASTERS].append(dict(consents.record_of(MASTERS, KEPT)))


def _double_the_record_of_a_deleted_document(consents: Consents) -> None:
    consents.records[MASTERS].append(dict(consents.record_of(MASTERS, GONE)))


def _invent_a_record(consents: Consents) -> None:
    consents.records[DETAILS].append(consents.record_of(DETAILS, SMS) | {"ExternalId__c": "s:new"})


def _invent_a_deleted_record(consents: Consents) -> None:
    consents.records[MASTERS].append({"ExternalId__c": "s:new", "Deleted__c": True})


def _mark_a_living_record(consents: Consents) -> None:
    consents.record_of(DETAILS, SMS)["Deleted__c"] = True


def _unmark_a_deleted_record(consents: Consents) -> None:
    consents.record_of(DETAILS, POST)["Deleted__c"] = False


def _take_the_type_of_an_id_for_another(consents: Consents) -> None:
    consents.records[MASTERS].append(consents.record_of(MASTERS, GONE) | {"ExternalId__c": "s:42"})


_BREAKS: list[Callable[[Consents], None]] = [
    _lose_a_document,
    _lose_a_change,
    _keep_a_deleted_document,
    _do_a_refused_write,
    _undo_an_acknowledged_write_by_an_older_one,
    _answer_what_nobody_wrote,
    _put_aside,
    _lose_a_record,
    _double_a_record,
    _double_the_record_of_a_deleted_document,
    _invent_a_record,
    _invent_a_deleted_record,
    _mark_a_living_record,
    _unmark_a_deleted_record,
    _take_the_type_of_an_id_for_another,
]


@pytest.mark.parametrize("disturb", _BREAKS, ids=lambda disturb: disturb.__name__.strip("_"))
def test_broken_link_is_a_difference(disturb: Callable[[Consents], None]) -> None:
    """Each way in which journal, MongoDB and Salesforce may disagree is told, in one sentence each."""
    consents = _consents()
    disturb(consents)
    assert len(_differences(consents)) == 1


def test_document_that_nobody_wrote_is_a_difference_and_so_is_its_record() -> None:
    """What another one put into MongoDB came from nowhere, and took its record along."""
    consents = _consents()
    consents.put_master("s:new")
    del consents.writes[len(consents.writes)], consents.outcomes[len(consents.outcomes)]
    assert _differences(consents) == [
        "consent_master s:new came from nowhere: no app wrote it",
        "record s:new of ConsentMaster__c came from nowhere: no app wrote such a document",
    ]


_MASTER_FIELDS = {
    "MemberId__c": "m-2",
    "Status__c": "expired",
    "PolicyVersion__c": "2026-2",
    "Channel__c": "call_centre",
    "ChangedAt__c": "2026-03-01T00:00:00.999+00:00",
}
_DETAIL_FIELDS = {
    "Master__r": {"ExternalId__c": CHANGED},
    "Purpose__c": "phone",
    "Granted__c": False,
    "ChangedAt__c": "2026-03-01T00:00:00.999+00:00",
}


@pytest.mark.parametrize("value", [None, "altered"])
@pytest.mark.parametrize(
    ("collection", "name", "field"),
    [
        *((MASTERS, CHANGED, field) for field in _MASTER_FIELDS),
        *((MASTERS, OLD, field) for field in _MASTER_FIELDS),
        *((DETAILS, SMS, field) for field in _DETAIL_FIELDS),
    ],
)
def test_record_altered_in_any_field_is_a_difference(collection: str, name: str, field: str, value: str | None) -> None:
    """Whatever of a record is another than its document says, or missing, is noticed."""
    consents = _consents()
    altered = _MASTER_FIELDS | _DETAIL_FIELDS if collection == DETAILS else _DETAIL_FIELDS | _MASTER_FIELDS
    consents.record_of(collection, name)[field] = None if value is None else altered[field]
    assert len(_differences(consents)) == 1


@pytest.mark.parametrize("outcome", [Outcome.LOST_AND_DONE, Outcome.LOST_AND_NOT_DONE])
def test_write_of_unknown_outcome_may_have_had_its_effect_or_not(outcome: Outcome) -> None:
    """A first write, a change and a deletion that nobody answered are in order in either state."""
    consents = _consents()
    consents.put_detail("s:new", KEPT, outcome)
    consents.put_master(KEPT, outcome, status="expired")
    consents.write(DETAILS, SMS, None, outcome)
    assert _differences(consents) == []


_NAMES = st.sampled_from([KEPT, CHANGED, GONE])
_STEPS = st.lists(st.tuples(_NAMES, st.booleans(), st.sampled_from(Outcome)), max_size=30)


@settings(max_examples=200, deadline=None)
@given(_STEPS)
def test_whatever_writes_of_unknown_outcome_did_is_in_order(steps: list[tuple[str, bool, Outcome]]) -> None:
    """Whichever answers are lost, whatever those writes did, there is no difference."""
    consents = Consents()
    for name, is_deletion, outcome in steps:
        if is_deletion:
            consents.write(MASTERS, name, None, outcome)
        else:
            consents.put_master(name, outcome)
    assert _differences(consents) == []
