"""The campaigns' books agree with whatever honest services may have left, and with nothing else."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.campaign_books import CampaignBooks
from sandbox.document_holdings import CampaignRow
from sandbox.journal import Operation
from tests.support.document_books import Campaigns, Outcome


def _differences(campaigns: Campaigns) -> list[str]:
    return list(CampaignBooks(campaigns.record(), list(campaigns.stored.values())).differences())


class _Desk:
    """Campaigns of each kind: kept as made, changed twice, and deleted, all told of."""

    def __init__(self) -> None:
        self.campaigns = Campaigns()
        self.kept, self.changed, self.deleted = (self.campaigns.create() for _ in range(3))
        self.campaigns.change(self.changed, {"name": "Another offer"}, 1)
        self.campaigns.change(self.changed, {"status": "active"}, 2)
        self.campaigns.delete(self.deleted, 1)

    def alter(self, campaign_id: str, /, **changes: object) -> None:
        """Alter a stored campaign."""
        self.campaigns.stored[campaign_id] = replace(self.campaigns.stored[campaign_id], **changes)  # type: ignore[arg-type] # whichever field

    def alter_answer(self, number: int, **changes: object) -> None:
        """Alter the body of an answer that was written down."""
        answer = self.campaigns.acknowledgements[number]
        self.campaigns.acknowledgements[number] = replace(answer, body={**answer.body, **changes})


def test_campaigns_in_order_have_no_difference() -> None:
    """What was created, changed and deleted under answers is as it was told."""
    assert _differences(_Desk().campaigns) == []


def _lose(desk: _Desk) -> None:
    del desk.campaigns.stored[desk.kept]


def _keep_a_deleted_one(desk: _Desk) -> None:
    desk.campaigns.stored[desk.deleted] = replace(desk.campaigns.stored[desk.kept], campaign_id=desk.deleted)


def _undo_the_last_change(desk: _Desk) -> None:
    desk.alter(desk.changed, status="draft", version=2)


def _change_in_secret(desk: _Desk) -> None:
    desk.alter(desk.kept, name="An offer of nobody", version=2)


def _change_otherwise_than_asked(desk: _Desk) -> None:
    desk.campaigns.change(desk.kept, {"name": "Wanted"}, 1, Outcome.LOST_AND_DONE)
    desk.alter(desk.kept, name="Not wanted")


def _change_a_stale_version(desk: _Desk) -> None:
    desk.campaigns.change(desk.changed, {"name": "Stale"}, 1, Outcome.LOST_AND_NOT_DONE)
    desk.alter(desk.changed, name="Stale", version=4)


def _change_once_more_than_asked(desk: _Desk) -> None:
    desk.campaigns.change(desk.kept, {"name": "Wanted"}, 1, Outcome.LOST_AND_DONE)
    desk.alter(desk.kept, version=3)


def _do_a_refused_change(desk: _Desk) -> None:
    attempt = desk.campaigns.ask(Operation.CHANGE_CAMPAIGN, target=desk.kept, wanted={"name": "Refused"}, version=1)
    desk.campaigns.answer(attempt, 412, code="campaign-changed")
    desk.alter(desk.kept, name="Refused", version=2)


def _do_a_refused_deletion(desk: _Desk) -> None:
    desk.campaigns.answer(
        desk.campaigns.ask(Operation.DELETE_CAMPAIGN, target=desk.kept, version=1), 409, code="campaign-in-use"
    )
    del desk.campaigns.stored[desk.kept]


def _delete_a_stale_version(desk: _Desk) -> None:
    desk.campaigns.delete(desk.changed, 1, Outcome.LOST_AND_NOT_DONE)
    del desk.campaigns.stored[desk.changed]


def _invent(desk: _Desk) -> None:
    desk.campaigns.stored["cp-new"] = replace(desk.campaigns.stored[desk.kept], campaign_id="cp-new")


def _make_a_refused_one(desk: _Desk) -> None:
    made = desk.campaigns.create(Outcome.LOST_AND_DONE)
    desk.campaigns.answer(desk.campaigns.attempts[len(desk.campaigns.attempts)], 422, code="invalid-request")
    assert made in desk.campaigns.stored


def _make_one_twice_for_one_key(desk: _Desk) -> None:
    desk.campaigns.create(Outcome.LOST_AND_DONE, key="twice", name="Twice")
    desk.campaigns.create(Outcome.LOST_AND_DONE, key="twice", name="Twice")


def _make_one_again_that_was_told(desk: _Desk) -> None:
    desk.campaigns.create(Outcome.LOST_AND_DONE, key="twice", name="Twice")
    desk.campaigns.create(key="twice", name="Twice")


def _make_one_otherwise_than_asked(desk: _Desk) -> None:
    made = desk.campaigns.create(Outcome.LOST_AND_DONE)
    desk.alter(made, description="Nobody wrote this.")


def _make_one_that_is_active_at_once(desk: _Desk) -> None:
    desk.alter(desk.campaigns.create(Outcome.LOST_AND_DONE), status="active")


def _count_a_change_of_nothing(desk: _Desk) -> None:
    name = desk.campaigns.stored[desk.kept].name
    desk.campaigns.change(desk.kept, {"name": name}, 1, Outcome.LOST_AND_NOT_DONE)
    desk.alter(desk.kept, version=2)


def _lose_one_whose_change_had_no_answer(desk: _Desk) -> None:
    desk.campaigns.change(desk.kept, {"name": "Wanted"}, 1, Outcome.LOST_AND_NOT_DONE)
    del desk.campaigns.stored[desk.kept]


def _tell_of_a_creation_that_is_active_at_once(desk: _Desk) -> None:
    desk.alter_answer(1, status="active")
    desk.alter(desk.kept, status="active")


def _tell_of_a_creation_otherwise_than_asked(desk: _Desk) -> None:
    desk.alter_answer(1, description="Nobody wrote this.")
    desk.alter(desk.kept, description="Nobody wrote this.")


def _tell_of_a_change_otherwise_than_asked(desk: _Desk) -> None:
    desk.alter_answer(5, status="paused")
    desk.alter(desk.changed, status="paused")


def _tell_of_another_campaign(desk: _Desk) -> None:
    other = desk.campaigns.create()
    attempt = desk.campaigns.ask(Operation.CHANGE_CAMPAIGN, target=desk.kept, version=1)
    desk.campaigns.answer(attempt, 200, desk.campaigns.told(other))


def _tell_of_a_version_that_was_not_asked_for(desk: _Desk) -> None:
    desk.alter(desk.kept, version=3)
    attempt = desk.campaigns.ask(Operation.CHANGE_CAMPAIGN, target=desk.kept, version=1)
    desk.campaigns.answer(attempt, 200, desk.campaigns.told(desk.kept))


def _tell_of_one_version_in_two_ways(desk: _Desk) -> None:
    attempt = desk.campaigns.ask(Operation.CHANGE_CAMPAIGN, target=desk.kept, version=1)
    desk.campaigns.answer(attempt, 200, desk.campaigns.told(desk.kept) | {"description": "Said once."})


def _tell_of_two_for_one_key(desk: _Desk) -> None:
    for _ in range(2):
        desk.campaigns.create(key="twice")


def _tell_of_one_for_two_keys(desk: _Desk) -> None:
    wanted = dict(desk.campaigns.attempts[1].wanted)
    attempt = desk.campaigns.ask(Operation.CREATE_CAMPAIGN, key="another", wanted=wanted)
    desk.campaigns.answer(attempt, 201, desk.campaigns.told(desk.kept))


def _tell_of_what_is_no_campaign(desk: _Desk) -> None:
    desk.campaigns.answer(desk.campaigns.ask(Operation.CREATE_CAMPAIGN, key="odd"), 201, {"starts_at": "soon"})


def _tell_of_a_campaign_at_no_time(desk: _Desk) -> None:
    body = desk.campaigns.told(desk.kept) | {"starts_at": 7}
    desk.campaigns.answer(desk.campaigns.ask(Operation.CREATE_CAMPAIGN, key="odd"), 201, body)


def _tell_of_a_campaign_at_some_time(desk: _Desk) -> None:
    body = desk.campaigns.told(desk.kept) | {"starts_at": "soon"}
    desk.campaigns.answer(desk.campaigns.ask(Operation.CREATE_CAMPAIGN, key="odd"), 201, body)


_BREAKS: list[Callable[[_Desk], None]] = [
    _lose,
    _keep_a_deleted_one,
    _undo_the_last_change,
    _change_in_secret,
    _change_otherwise_than_asked,
    _change_a_stale_version,
    _change_once_more_than_asked,
    _do_a_refused_change,
    _do_a_refused_deletion,
    _delete_a_stale_version,
    _invent,
    _make_a_refused_one,
    _make_one_twice_for_one_key,
    _make_one_again_that_was_told,
    _make_one_otherwise_than_asked,
    _make_one_that_is_active_at_once,
    _count_a_change_of_nothing,
    _lose_one_whose_change_had_no_answer,
    _tell_of_a_creation_that_is_active_at_once,
    _tell_of_a_creation_otherwise_than_asked,
    _tell_of_a_change_otherwise_than_asked,
    _tell_of_another_campaign,
    _tell_of_a_version_that_was_not_asked_for,
    _tell_of_one_version_in_two_ways,
    _tell_of_two_for_one_key,
    _tell_of_one_for_two_keys,
    _tell_of_what_is_no_campaign,
    _tell_of_a_campaign_at_no_time,
    _tell_of_a_campaign_at_some_time,
]


@pytest.mark.parametrize("disturb", _BREAKS, ids=lambda disturb: disturb.__name__.strip("_"))
def test_broken_link_is_a_difference(disturb: Callable[[_Desk], None]) -> None:
    """Each way in which answers and stored campaigns may disagree is told, and is the only difference that is."""
    desk = _Desk()
    disturb(desk)
    assert len(_differences(desk.campaigns)) == 1


_ALTERED = {"campaign_id": "cp-other", "status": "paused", "version": 9}


@pytest.mark.parametrize("name", [field.name for field in fields(CampaignRow)])
def test_campaign_altered_in_any_field_is_a_difference(name: str) -> None:
    """Whatever is changed in a stored campaign is noticed."""
    desk = _Desk()
    before = getattr(desk.campaigns.stored[desk.changed], name)
    value = _ALTERED.get(name) or (f"{before}!" if isinstance(before, str) else before + timedelta(milliseconds=1))
    desk.alter(desk.changed, **{name: value})
    assert _differences(desk.campaigns)


@pytest.mark.parametrize("outcome", [Outcome.LOST_AND_DONE, Outcome.LOST_AND_NOT_DONE])
def test_request_without_an_answer_may_have_had_its_effect_or_not(outcome: Outcome) -> None:
    """A creation, a change and a deletion that nobody answered are in order in either state."""
    desk = _Desk()
    desk.campaigns.create(outcome)
    desk.campaigns.change(desk.kept, {"status": "active"}, 1, outcome)
    desk.campaigns.delete(desk.changed, 3, outcome)
    assert _differences(desk.campaigns) == []


def test_server_error_is_no_answer() -> None:
    """What was answered by a 5xx may have been done, like what was not answered at all."""
    desk = _Desk()
    desk.campaigns.delete(desk.kept, 1, Outcome.LOST_AND_DONE)
    desk.campaigns.answer(desk.campaigns.attempts[len(desk.campaigns.attempts)], 503, code="dependency-unavailable")
    assert _differences(desk.campaigns) == []


def test_null_takes_a_description_away() -> None:
    """A description that is asked to be null is told of, and stored, as an empty one."""
    desk = _Desk()
    attempt = desk.campaigns.ask(Operation.CHANGE_CAMPAIGN, target=desk.kept, wanted={"description": None}, version=1)
    desk.alter(desk.kept, description="", version=2)
    desk.campaigns.answer(attempt, 200, desk.campaigns.told(desk.kept))
    assert _differences(desk.campaigns) == []


def test_repeated_request_is_one() -> None:
    """The same order, and the same change, may be asked for again and told of as often."""
    desk = _Desk()
    for number in (1, 5):
        first, answer = desk.campaigns.attempts[number], desk.campaigns.acknowledgements[number]
        again = desk.campaigns.ask(
            first.operation, target=first.target, key=first.key, wanted=dict(first.wanted), version=first.version
        )
        desk.campaigns.answer(again, answer.status, dict(answer.body))
    assert _differences(desk.campaigns) == []


_OUTCOMES = st.sampled_from(Outcome)
_STEPS = st.lists(st.tuples(st.sampled_from(["create", "change", "delete"]), _OUTCOMES, st.integers(0, 3)), max_size=30)


@settings(max_examples=200, deadline=None)
@given(_STEPS)
def test_whatever_unanswered_requests_did_is_in_order(steps: list[tuple[str, Outcome, int]]) -> None:
    """An operator who goes on by what they were told, whichever answers are lost, has books without a difference."""
    campaigns = Campaigns()
    versions: dict[str, int] = {}
    for number, (what, outcome, choice) in enumerate(steps):
        campaign_id = list(versions)[choice % len(versions)] if versions else None
        if what == "create" or campaign_id is None:
            made = campaigns.create(outcome)
            if outcome is Outcome.ANSWERED:
                versions[made] = 1
        elif what == "change":
            campaigns.change(campaign_id, {"name": f"Offer, as of {number}"}, versions[campaign_id], outcome)
        else:
            campaigns.delete(campaign_id, versions[campaign_id], outcome)
        for answer in campaigns.acknowledgements.values():
            if answer.body:
                versions[answer.body["campaign_id"]] = answer.body["version"]
    assert _differences(campaigns) == []
