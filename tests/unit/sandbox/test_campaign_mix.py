"""What is asked about campaigns: changes one after another, and only answers that are in order."""

from random import Random

import orjson
import pytest

from sandbox.campaign_mix import OPERATOR, CampaignMix, bad_campaign_requests
from sandbox.journal import Acknowledgement, Operation
from sandbox.request import Request


def _answer(status: int, code: str | None = None) -> Acknowledgement:
    return Acknowledgement(1, status, code, {}, 0.01)


def _made(mix: CampaignMix, number: int, *, version: int = 1, status: str = "draft") -> None:
    """Let the operator be told of one more campaign."""
    campaign = {"campaign_id": f"cp-{number}", "version": version, "status": status}
    mix.learn(mix.create(), _answer(201), campaign)


def _mix(*, seed: int = 1, version: int = 1, status: str = "draft") -> CampaignMix:
    """Return a mix in which the operator knows of one campaign."""
    mix = CampaignMix(Random(seed))
    _made(mix, 0, version=version, status=status)
    return mix


def _change(mix: CampaignMix) -> Request:
    request = mix.change()
    assert request is not None
    return request


def test_without_campaigns_there_is_nothing_to_see_change_or_delete() -> None:
    """Before the first campaign nobody asks about one."""
    mix = CampaignMix(Random(1))
    assert (mix.see("m-1"), mix.change(), mix.delete()) == (None, None, None)


def test_every_campaign_is_asked_for_under_a_key_of_its_own_and_can_be_repeated() -> None:
    """The body says what the journal says is wanted, and no two orders share a key."""
    orders = [CampaignMix(Random(seed)).create() for seed in range(100)]
    assert len({order.key for order in orders}) == 100
    assert all(orjson.loads(order.body or b"") == order.wanted for order in orders)
    assert all(order.is_repeatable and order.member_id == OPERATOR for order in orders)


def test_campaign_that_is_being_changed_is_neither_changed_nor_deleted_nor_hidden() -> None:
    """One change at a time; whoever reads meanwhile is answered 200, whichever way it goes."""
    mix = _mix(status="active")
    _change(mix)
    assert mix.change() is None
    assert mix.delete() is None
    seen = mix.see("m-1")
    assert seen is not None
    assert seen.expected == ("200",)


def test_campaign_that_is_being_read_is_not_deleted_until_its_readers_have_their_answers() -> None:
    """A reader is never told 404 because of a deletion that began after their request."""
    mix = _mix()
    seen = mix.see("m-1")
    assert seen is not None
    assert mix.delete() is None
    mix.release(seen)
    assert mix.delete() is not None


def test_campaign_is_forgotten_the_moment_its_deletion_is_asked_for() -> None:
    """Nobody asks about it any more; the deletion may find nothing only where it is a repetition."""
    mix = _mix()
    request = mix.delete()
    assert request is not None
    assert (request.expected, request.expected_again) == (("204",), ("404 campaign-not-found",))
    assert (mix.see("m-1"), mix.change(), mix.delete()) == (None, None, None)


@pytest.mark.parametrize("status", ["active", "paused"])
def test_campaign_in_use_is_not_deleted(status: str) -> None:
    """The operator deletes drafts and ended campaigns alone."""
    assert _mix(status=status).delete() is None


def test_drafts_are_seen_by_the_operator_alone() -> None:
    """A member who asked for one would rightly be told that there is none."""
    draft, public = _mix().see("m-1"), _mix(status="paused").see("m-1")
    assert draft is not None
    assert public is not None
    assert (draft.member_id, public.member_id) == (OPERATOR, "m-1")


def test_change_names_the_version_that_was_told_and_moves_with_the_answer() -> None:
    """What the answer says is what the next change is based on."""
    mix = _mix(version=1)
    request = _change(mix)
    assert (request.if_match, request.expected) == (1, ("200",))
    mix.release(request)
    mix.learn(request, _answer(200), {"version": 2, "status": "ended"})
    request = _change(mix)
    assert request.if_match in (1, 2)
    assert request.campaign is not None
    assert (request.campaign.version, request.campaign.status) == (2, "ended")


def test_change_of_a_version_that_is_no_more_must_be_refused() -> None:
    """Some changes name the version before the last one, and nothing but 412 is in order for them."""
    requests = [_change(_mix(seed=seed, version=7, status="active")) for seed in range(200)]
    stale = [request for request in requests if request.if_match == 6]
    assert 10 < len(stale) < 90
    assert {request.expected for request in stale} == {("412 campaign-changed",)}
    assert {request.expected for request in requests if request.if_match == 7} == {("200",)}


def test_every_change_wants_a_name_that_no_campaign_had() -> None:
    """So no stale change can look like the repetition of one that was made."""
    mix = _mix()
    names = set()
    for _ in range(500):
        request = _change(mix)
        names.add(request.wanted["name"])
        mix.release(request)
    assert len(names) == 500


@pytest.mark.parametrize("answer", [None, _answer(503, "dependency-unavailable")], ids=["no answer", "503"])
def test_campaign_whose_change_has_no_known_outcome_is_left_alone(answer: Acknowledgement | None) -> None:
    """Nobody could say any more which answer is in order."""
    mix = _mix()
    request = _change(mix)
    mix.release(request)
    mix.learn(request, answer, {})
    assert mix.change() is None


def test_pages_are_turned() -> None:
    """Some members go on behind the last page that was seen, until there is none."""
    mix = CampaignMix(Random(1))
    page = mix.browse("m-1")
    assert "cursor" not in page.path
    mix.learn(page, _answer(200), {"items": [], "next_cursor": "behind"})
    assert 10 < sum("cursor=behind" in mix.browse("m-1").path for _ in range(100)) < 90
    mix.learn(page, _answer(200), {"items": [], "next_cursor": None})
    assert not any("cursor" in mix.browse("m-1").path for _ in range(100))


def test_memory_of_campaigns_is_bounded() -> None:
    """However many there are, 2,000 are remembered."""
    mix = CampaignMix(Random(1))
    for number in range(2_050):
        _made(mix, number)
    assert len(mix._held) == 2_000


def test_mistakes_all_get_a_refusal_and_none_is_repeated() -> None:
    """Every mistake is answered by one 4xx of its own, and nobody repeats it."""
    for mistake in bad_campaign_requests("m-1"):
        (outcome,) = mistake.expected
        assert outcome.startswith("4")
        assert not mistake.is_repeatable
        assert mistake.operation is Operation.BAD_REQUEST
