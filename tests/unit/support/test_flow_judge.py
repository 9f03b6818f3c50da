"""The flow, judged by ids: each kind of damage to the books fails the rule that it breaks."""

from dataclasses import replace

import pytest

from sandbox.audit import audit
from tests.support.books import World
from tests.support.flow_judge import judge_flow
from tests.support.judgement import Judgement, Rule


def _world() -> tuple[World, str]:
    world = World()
    redemption_id = world.redeem_reward("m-1")
    world.redeem_reward("m-2", is_answered=False)
    return world, redemption_id


def _judge(world: World) -> Judgement:
    record, holdings = world.record(), world.holdings()
    return judge_flow(record, holdings, audit(record, holdings, failures_allowed=True))


def test_orderly_books_have_no_difference() -> None:
    """What was not answered may be there."""
    world, _ = _world()
    assert _judge(world).is_ok, str(_judge(world))


@pytest.mark.parametrize("rule", [Rule.NOTHING_LOST, Rule.NOTHING_DOUBLED, Rule.NOTHING_INVENTED])
def test_damage_fails_its_rule_and_the_audit(rule: Rule) -> None:
    """A coupon dropped, doubled, or invented."""
    world, redemption_id = _world()
    coupon = world.coupons[redemption_id]
    if rule is Rule.NOTHING_LOST:
        del world.coupons[redemption_id]
    elif rule is Rule.NOTHING_DOUBLED:
        world.coupons["again"] = replace(coupon, code="f" * 16)
    else:
        world.coupons["new"] = replace(coupon, code="f" * 16, redemption_id=None)
    judgement = _judge(world)
    assert judgement.failed(rule)
    assert judgement.failed(Rule.RIGHT_CONTENT)


def test_events_that_wait_are_progress_not_saved() -> None:
    """The outbox has to be empty."""
    world, _ = _world()
    world.unpublished = 1
    assert _judge(world).failed(Rule.PROGRESS_SAVED)
