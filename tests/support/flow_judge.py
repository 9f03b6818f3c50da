"""Judge the whole flow by its ids: an idempotency key is what a member attempts, a coupon is what is stored."""

from collections.abc import Iterator

from sandbox.audit import Verdict
from sandbox.holdings import Holdings
from sandbox.journal import Attempt, Operation, Record
from tests.support.judgement import Judgement, Rule, judge, judge_progress
from tests.support.ledger import Unit, digest, judge_units

_CREATED = 201


def judge_flow(record: Record, holdings: Holdings, verdict: Verdict) -> Judgement:
    """Hold a journal against both databases: L1 to L3 by ids, L4 by the audit, L5 by what is still on its way."""
    redemptions = [one for one in record.attempts.values() if one.operation is Operation.REDEEM_REWARD]
    attempted = [_unit(one) for one in redemptions]
    acknowledged = [_unit(one) for one in redemptions if _is_told(record, one)]
    units = judge_units(attempted, acknowledged, _stored(holdings))
    progress = judge_progress({"events to publish": 0}, {"events to publish": holdings.unpublished})
    return units | judge(Rule.RIGHT_CONTENT, verdict.differences) | progress


def _is_told(record: Record, attempt: Attempt) -> bool:
    answer = record.acknowledgements.get(attempt.number)
    return answer is not None and answer.status == _CREATED


def _unit(attempt: Attempt) -> Unit:
    return f"{attempt.member_id}/{attempt.key}", digest([attempt.member_id, attempt.target])


def _stored(holdings: Holdings) -> Iterator[Unit]:
    """Yield a unit for each coupon, and one for each redemption that has none and that nobody asked for."""
    keys = {key.redemption_id: f"{key.member_id}/{key.key}" for key in holdings.keys}
    for coupon in holdings.coupons:
        unit_id = keys.get(coupon.redemption_id or "", f"coupon {coupon.code}")
        yield unit_id, digest([coupon.member_id, coupon.reward_id])
    with_coupon = {coupon.redemption_id for coupon in holdings.coupons}
    for row in holdings.redemptions:
        if row.redemption_id not in with_coupon and row.redemption_id not in keys:
            yield f"redemption {row.redemption_id}", digest([row.member_id, row.reward_id])
