"""What members do: the published shares, the same again for the same seed, and only answers that are in order."""

from collections import Counter
from random import Random

from sandbox.instance import Service
from sandbox.journal import Acknowledgement, Operation
from sandbox.mix import CAMPAIGN_OPERATIONS, MIX, Members, bad_requests
from sandbox.request import Held
from sandbox.seed import make_seed

SEED = make_seed(10, 1_000)


def _members(number: int = 1, *, has_campaigns: bool = False) -> Members:
    return Members(SEED, Random(number), has_campaigns=has_campaigns)


def _holding(held: Held, number: int = 1) -> Members:
    members = _members(number)
    members.hold(held)
    return members


def test_shares_add_up_to_one() -> None:
    """The published mix covers everything members do, and adds up to 1."""
    assert set(MIX) == set(Operation)
    assert abs(sum(MIX.values()) - 1) < 1e-9


def test_mix_is_kept_within_a_hundredth() -> None:
    """Of 20,000 requests each operation gets its share, where there are coupons and campaigns enough to choose from."""
    members = _members(has_campaigns=True)
    for number in range(1_000):
        members.hold(Held(str(number), f"{number:016d}", "m-1"))
        campaign = {"campaign_id": f"cp-{number}", "version": 1, "status": "draft"}
        members.campaigns.learn(members.campaigns.create(), Acknowledgement(1, 201, None, {}, 0.0), campaign)
    counts: Counter[Operation] = Counter()
    for _ in range(20_000):
        request = members.next_request()
        counts[request.operation] += 1
        if request.held is not None:
            request.held.is_busy = False
        members.campaigns.release(request)
    for operation, share in MIX.items():
        assert abs(counts[operation] / 20_000 - share) < 0.01


def test_without_campaign_api_nobody_asks_it_anything() -> None:
    """Neither campaigns nor mistakes about them go to a service that is not there."""
    members = _members()
    assert Service.CAMPAIGN_API not in {members.next_request().service for _ in range(5_000)}


def test_where_there_is_no_campaign_yet_one_is_created() -> None:
    """Before anybody was told of a campaign nothing but pages and new campaigns is asked for."""
    members = _members(has_campaigns=True)
    operations = {members.next_request().operation for _ in range(1_000)} & CAMPAIGN_OPERATIONS
    assert operations == {Operation.BROWSE_CAMPAIGNS, Operation.CREATE_CAMPAIGN}


def test_same_seed_gives_the_same_requests() -> None:
    """Two members' worlds with the same seed decide alike, keys included."""
    first, second = ([members.redeem_reward() for _ in range(50)] for members in (_members(7), _members(7)))
    assert first == second


def test_every_redemption_has_a_key_of_its_own() -> None:
    """No two redemptions share an idempotency key."""
    members = _members()
    assert len({members.redeem_reward().key for _ in range(1_000)}) == 1_000


def test_without_coupons_rewards_are_redeemed_instead() -> None:
    """Before anybody has a coupon nothing is asked about one."""
    members = _members()
    operations = {members.next_request().operation for _ in range(1_000)}
    assert operations.isdisjoint({Operation.SEE_COUPON, Operation.REDEEM_COUPON, Operation.CANCEL_REDEMPTION})


def test_coupon_that_is_being_changed_is_left_alone() -> None:
    """While one request changes a coupon no other request is about it."""
    held = Held("r", "0" * 16, "m-1")
    members = _holding(held)
    while not held.is_busy:
        members.next_request()
    assert all(members.next_request().held is None for _ in range(1_000))


def test_owner_asks_about_their_own_coupon() -> None:
    """Whoever asks about a coupon is the member who was told of it."""
    members = _holding(Held("r", "0" * 16, "m-7"))
    asked = [request for request in (members.next_request() for _ in range(200)) if request.held is not None]
    assert {request.member_id for request in asked} == {"m-7"}


def _expected(held: Held, operation: Operation) -> tuple[str, ...]:
    """Return which outcomes are in order for an operation on a coupon."""
    for number in range(1_000):
        request = _holding(
            Held(
                held.redemption_id,
                held.code,
                held.member_id,
                was_seen=held.was_seen,
                redeem_asked=held.redeem_asked,
                cancel_asked=held.cancel_asked,
            ),
            number,
        ).next_request()
        if request.operation is operation:
            return request.expected
    raise AssertionError(f"{operation} does not occur")


def test_coupon_may_be_unknown_only_until_it_was_seen() -> None:
    """A coupon that coupon_api has shown once must never be unknown there again."""
    for operation in (Operation.SEE_COUPON, Operation.REDEEM_COUPON):
        assert "404 coupon-not-found" in _expected(Held("r", "0" * 16, "m-1"), operation)
        assert "404 coupon-not-found" not in _expected(Held("r", "0" * 16, "m-1", was_seen=True), operation)


def test_refusals_are_in_order_only_where_somebody_asked_for_their_cause() -> None:
    """A coupon is refused as cancelled, or a cancellation because of its use, only if a member asked for that."""
    fresh = Held("r", "0" * 16, "m-1", was_seen=True)
    assert _expected(fresh, Operation.REDEEM_COUPON) == ("200",)
    assert _expected(fresh, Operation.CANCEL_REDEMPTION) == ("200",)
    asked = Held("r", "0" * 16, "m-1", was_seen=True, redeem_asked=True, cancel_asked=True)
    assert _expected(asked, Operation.REDEEM_COUPON) == ("200", "409 coupon-cancelled")
    assert _expected(asked, Operation.CANCEL_REDEMPTION) == ("200", "409 coupon-used")


def test_mistakes_all_get_a_refusal_and_none_is_repeated() -> None:
    """Every mistake is answered by one 4xx of its own, and nobody repeats it."""
    mistakes = bad_requests("m-1", "m-2")
    assert len(mistakes) >= 10
    for mistake in mistakes:
        (outcome,) = mistake.expected
        assert outcome.startswith("4")
        assert not mistake.is_repeatable
        assert mistake.operation is Operation.BAD_REQUEST


def test_memory_of_coupons_is_bounded() -> None:
    """However many coupons there are, 20,000 are remembered."""
    members = _members()
    for number in range(20_100):
        members.hold(Held(str(number), f"{number:016d}", "m-1"))
    assert len(members.held) == 20_000
