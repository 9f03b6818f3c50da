"""The audit says ok about a world in order, and FAILED about every way in which one link is broken."""

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest

from sandbox.audit import Verdict, audit
from sandbox.holdings import CouponRow, RedemptionRow
from sandbox.journal import Acknowledgement, Operation
from tests.support.books import REWARD, World


class _Town:
    """A world with one redemption of each kind: kept, spent and cancelled, all told of."""

    def __init__(self) -> None:
        self.world = World()
        self.kept = self.world.redeem_reward("m-1")
        self.spent = self.world.redeem_reward("m-2")
        self.cancelled = self.world.redeem_reward("m-3")
        self.world.redeem_coupon(self.spent)
        self.world.cancel(self.cancelled)
        self.world.answer(self.world.ask(Operation.SEE_POINTS, "m-1"), 200)

    def coupon(self, redemption_id: str, /, **changes: Any) -> None:  # noqa: ANN401 - whichever field
        """Alter a stored coupon."""
        self.world.coupons[redemption_id] = replace(self.world.coupons[redemption_id], **changes)

    def redemption(self, redemption_id: str, /, **changes: Any) -> None:  # noqa: ANN401 - whichever field
        """Alter a stored redemption."""
        self.world.redemptions[redemption_id] = replace(self.world.redemptions[redemption_id], **changes)

    def acknowledgement(self, number: int, /, **changes: Any) -> None:  # noqa: ANN401 - whichever field
        """Alter an answer that was written down."""
        self.world.acknowledgements[number] = replace(self.world.acknowledgements[number], **changes)


def _verdict(world: World, *, failures_allowed: bool = False) -> Verdict:
    return audit(world.record(), world.holdings(), failures_allowed=failures_allowed)


def test_world_in_order_is_ok() -> None:
    """Where everything fits the last line says ok, with the counts."""
    verdict = _verdict(_Town().world)
    assert verdict.differences == ()
    (line,) = verdict.lines()
    assert line == (
        "audit ok: 6 requests (0 failed), 3 redemptions that members were told of, 3 stored, "
        "3 coupons (1 redeemed, 1 cancelled), 0 dead letters"
    )


def test_empty_world_is_ok() -> None:
    """No request, no difference."""
    assert _verdict(World()).is_ok


def _drop_coupon(town: _Town) -> None:
    del town.world.coupons[town.kept]


def _double_coupon(town: _Town) -> None:
    town.world.coupons["second"] = replace(town.world.coupons[town.kept], code="Z" * 16)


def _invent_coupon(town: _Town) -> None:
    town.world.coupons["new"] = replace(town.world.coupons[town.kept], code="Z" * 16, redemption_id="unheard-of")


def _invent_coupon_without_redemption(town: _Town) -> None:
    town.world.coupons["new"] = replace(town.world.coupons[town.kept], code="Z" * 16, redemption_id=None)


def _drop_redemption(town: _Town) -> None:
    del town.world.redemptions[town.kept]
    town.world.keys = [key for key in town.world.keys if key.redemption_id != town.kept]
    del town.world.coupons[town.kept]
    town.world.points["m-1"] += 50
    town.world.stock[REWARD] += 1


def _invent_redemption(town: _Town) -> None:
    invented = town.world.redeem_reward("m-1")
    number = len(town.world.attempts)
    assert town.world.acknowledgements.pop(number).body["redemption_id"] == invented
    del town.world.attempts[number]


def _redeem_twice_for_one_key(town: _Town) -> None:
    second = town.world.redeem_reward("m-1", is_answered=False)
    del town.world.attempts[len(town.world.attempts)]
    first_key = next(key for key in town.world.keys if key.redemption_id == town.kept)
    town.world.keys[-1] = replace(first_key, redemption_id=second)


def _forget_key(town: _Town) -> None:
    town.world.keys = town.world.keys[1:]


def _points_off_by_one(town: _Town) -> None:
    town.world.points["m-1"] += 1


def _stock_off_by_one(town: _Town) -> None:
    town.world.stock[REWARD] -= 1


def _points_not_given_back(town: _Town) -> None:
    town.world.points["m-3"] -= 50


def _stock_not_given_back(town: _Town) -> None:
    town.world.stock[REWARD] -= 1


def _member_vanished(town: _Town) -> None:
    del town.world.points["m-1"]


def _member_invented(town: _Town) -> None:
    town.world.points["m-9"] = 1


def _spent_coupon_fresh_again(town: _Town) -> None:
    town.coupon(town.spent, status="issued")


def _cancelled_coupon_fresh_again(town: _Town) -> None:
    town.coupon(town.cancelled, status="issued")


def _spent_coupon_cancelled_too(town: _Town) -> None:
    town.world.cancel(town.spent, is_answered=False)


def _kept_coupon_spent_by_nobody(town: _Town) -> None:
    town.coupon(town.kept, status="redeemed")


def _kept_redemption_cancelled_by_nobody(town: _Town) -> None:
    town.redemption(town.kept, status="cancelled")
    town.coupon(town.kept, status="cancelled")
    town.world.points["m-1"] += 50
    town.world.stock[REWARD] += 1


def _cancelled_only_in_the_store(town: _Town) -> None:
    town.world.cancel(town.kept)
    town.coupon(town.kept, status="issued")


def _cancellation_unfinished(town: _Town) -> None:
    town.world.ask(Operation.CANCEL_REDEMPTION, "m-1", town.kept)
    town.world.answer(town.world.attempts[len(town.world.attempts)], 409, code="coupon-used")
    town.redemption(town.kept, status="cancelling")


def _event_unpublished(town: _Town) -> None:
    town.world.unpublished = 1


def _dead_letter(town: _Town) -> None:
    town.world.dead_letters = 1


def _told_another_code(town: _Town) -> None:
    body = dict(town.world.acknowledgements[1].body) | {"coupon_code": "Z" * 16}
    town.acknowledgement(1, body=body)


def _told_twice_with_other_content(town: _Town) -> None:
    attempt = town.world.ask(Operation.REDEEM_REWARD, "m-1", REWARD, key=town.world.attempts[1].key)
    town.world.answer(attempt, 201, dict(town.world.acknowledgements[1].body) | {"points_spent": 49})


def _told_of_the_same_for_two_keys(town: _Town) -> None:
    attempt = town.world.ask(Operation.REDEEM_REWARD, "m-1", REWARD, key="another")
    town.world.answer(attempt, 201, dict(town.world.acknowledgements[1].body))


def _told_of_an_unknown_reward(town: _Town) -> None:
    town.world.attempts[1] = replace(town.world.attempts[1], target="rw-unheard-of")


def _answer_lost(town: _Town) -> None:
    number = len(town.world.attempts)
    del town.world.acknowledgements[number]
    town.world.failures[number] = "ReadError"


def _answer_without_a_request(town: _Town) -> None:
    town.world.acknowledgements[99] = Acknowledgement(99, 200, None, {}, 0.01)


def _server_error(town: _Town) -> None:
    town.acknowledgement(len(town.world.attempts), status=503)


def _refused_redemption_stored(town: _Town) -> None:
    town.world.redeem_reward("m-1", is_answered=False)
    town.world.answer(town.world.attempts[len(town.world.attempts)], 409, code="sold-out")


def _refused_coupon_redeemed(town: _Town) -> None:
    attempt = town.world.ask(Operation.REDEEM_COUPON, "m-1", town.world.coupons[town.kept].code)
    town.world.answer(attempt, 404, code="coupon-not-found")
    town.coupon(town.kept, status="redeemed")


def _refused_cancellation_done(town: _Town) -> None:
    town.world.cancel(town.kept, is_answered=False)
    town.world.answer(town.world.attempts[len(town.world.attempts)], 409, code="coupon-used")


def _refused_for_an_unexpected_reason(town: _Town) -> None:
    attempt = town.world.ask(Operation.REDEEM_REWARD, "m-1", REWARD, key="refused")
    town.world.answer(attempt, 409, code="coupon-used")


def _bad_request_accepted(town: _Town) -> None:
    number = len(town.world.attempts)
    town.world.attempts[number] = replace(
        town.world.attempts[number], operation=Operation.BAD_REQUEST, expected=("422",)
    )


_BREAKS: list[Callable[[_Town], None]] = [
    _drop_coupon,
    _double_coupon,
    _invent_coupon,
    _invent_coupon_without_redemption,
    _drop_redemption,
    _invent_redemption,
    _redeem_twice_for_one_key,
    _forget_key,
    _points_off_by_one,
    _stock_off_by_one,
    _points_not_given_back,
    _stock_not_given_back,
    _member_vanished,
    _member_invented,
    _spent_coupon_fresh_again,
    _cancelled_coupon_fresh_again,
    _spent_coupon_cancelled_too,
    _kept_coupon_spent_by_nobody,
    _kept_redemption_cancelled_by_nobody,
    _cancelled_only_in_the_store,
    _cancellation_unfinished,
    _event_unpublished,
    _dead_letter,
    _told_another_code,
    _told_twice_with_other_content,
    _told_of_the_same_for_two_keys,
    _told_of_an_unknown_reward,
    _answer_lost,
    _answer_without_a_request,
    _server_error,
    _refused_redemption_stored,
    _refused_coupon_redeemed,
    _refused_cancellation_done,
    _refused_for_an_unexpected_reason,
    _bad_request_accepted,
]


@pytest.mark.parametrize("disturb", _BREAKS, ids=lambda disturb: disturb.__name__.strip("_"))
def test_broken_link_fails_the_audit(disturb: Callable[[_Town], None]) -> None:
    """One broken link is enough: the last line says FAILED and what differs."""
    town = _Town()
    disturb(town)
    verdict = _verdict(town.world)
    assert not verdict.is_ok
    *_, last = verdict.lines()
    assert last.startswith("audit FAILED: ")
    assert verdict.differences[0] in last


_ALTERED = {
    "code": "Z" * 16,
    "member_id": "m-2",
    "reward_id": "rw-tea",
    "redemption_id": "unheard-of",
    "value_cents": 301,
    "currency": "USD",
    "status": "redeemed",
}
_ALTERED_REDEMPTION = _ALTERED | {"coupon_code": "Z" * 16, "points_spent": 51, "status": "cancelling"}


@pytest.mark.parametrize("name", [field.name for field in fields(CouponRow)])
def test_coupon_altered_in_any_field_fails_the_audit(name: str) -> None:
    """Whatever is changed in a stored coupon is noticed."""
    town = _Town()
    before = getattr(town.world.coupons[town.kept], name)
    town.coupon(town.kept, **{name: _ALTERED.get(name) or before + timedelta(microseconds=1)})
    assert not _verdict(town.world).is_ok


@pytest.mark.parametrize("name", [field.name for field in fields(RedemptionRow)])
def test_redemption_altered_in_any_field_fails_the_audit(name: str) -> None:
    """Whatever is changed in a stored redemption is noticed, even when its coupon was changed along with it."""
    town = _Town()
    before = getattr(town.world.redemptions[town.kept], name)
    value = _ALTERED_REDEMPTION.get(name) or before + timedelta(microseconds=1)
    town.redemption(town.kept, **{name: value})
    twin = {"coupon_code": "code", "created_at": "issued_at"}.get(name, name)
    if twin in {field.name for field in fields(CouponRow)}:
        town.coupon(town.kept, **{twin: value})
    assert not _verdict(town.world).is_ok


def test_request_without_an_answer_may_have_had_its_effect_where_failures_are_allowed() -> None:
    """A killed service's request counts as done or not done; both are in order, and both are counted."""
    for is_done in (True, False):
        town = _Town()
        if is_done:
            town.world.redeem_reward("m-1", is_answered=False)
            town.world.redeem_coupon(town.kept, is_answered=False)
        else:
            town.world.ask(Operation.REDEEM_REWARD, "m-1", REWARD, key="lost")
            town.world.ask(Operation.REDEEM_COUPON, "m-1", town.world.coupons[town.kept].code)
        allowed = _verdict(town.world, failures_allowed=True)
        assert allowed.differences == ()
        assert allowed.failed_requests == 2
        assert len(_verdict(town.world).differences) == 2


def test_request_whose_sender_was_killed_is_no_failure_and_may_have_had_its_effect() -> None:
    """Nobody waited for its answer, so none is missed; what it did, whole or not at all, is in order."""
    for is_done in (True, False):
        town = _Town()
        if is_done:
            town.world.redeem_reward("m-1", is_answered=False)
        else:
            town.world.ask(Operation.REDEEM_REWARD, "m-1", REWARD, key="lost")
        record = replace(town.world.record(), abandoned=frozenset({len(town.world.attempts)}))
        assert not _verdict(town.world).is_ok
        verdict = audit(record, town.world.holdings())
        assert verdict.is_ok, verdict.differences
        assert verdict.failed_requests == 0


def test_difference_that_is_no_failed_request_is_not_counted_as_one() -> None:
    """The count of failed requests is that of requests, whatever else differs."""
    world = World()
    del world.coupons[world.redeem_reward("m-1")]
    verdict = _verdict(world)
    assert (verdict.is_ok, verdict.failed_requests) == (False, 0)


def test_many_differences_are_cut_short_and_counted() -> None:
    """Of many differences twenty are shown, and the rest is counted."""
    world = World()
    for _ in range(10):
        del world.coupons[world.redeem_reward("m-1")]
    world.dead_letters = 1
    for number in range(100, 120):
        world.acknowledgements[number] = Acknowledgement(number, 200, None, {}, 0.01)
    lines = list(_verdict(world).lines())
    assert len(lines) == 22
    assert lines[-2] == "  and 11 more"
    assert lines[-1].startswith("audit FAILED: 31 differences")
