"""The life of a coupon, as pure rules."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from loyalty.coupon import Coupon, CouponStatus, cancel, redeem
from loyalty.errors import CouponCancelledError, CouponExpiredError, CouponMismatchError, CouponUsedError
from loyalty.money import Money

ISSUED_AT = datetime(2026, 1, 1, tzinfo=UTC)
EXPIRES_AT = ISSUED_AT + timedelta(days=30)
WITHIN = ISSUED_AT + timedelta(days=1)
COUPON = Coupon(
    code="0123456789ABCDEF",
    member_id="m-1",
    reward_id="rw-1",
    redemption_id=UUID(int=7),
    value=Money(500, "EUR"),
    issued_at=ISSUED_AT,
    expires_at=EXPIRES_AT,
)
REDEEMED = replace(COUPON, status=CouponStatus.REDEEMED, redeemed_at=WITHIN, version=2)
CANCELLED = replace(COUPON, status=CouponStatus.CANCELLED, version=2)
ORDER = replace(COUPON, version=2)


@pytest.mark.parametrize(
    ("coupon", "now", "status"),
    [
        (COUPON, EXPIRES_AT - timedelta(microseconds=1), CouponStatus.ISSUED),
        (COUPON, EXPIRES_AT, CouponStatus.EXPIRED),
        (REDEEMED, EXPIRES_AT, CouponStatus.REDEEMED),
        (CANCELLED, EXPIRES_AT, CouponStatus.CANCELLED),
    ],
)
def test_status_at_a_time_adds_expired_to_an_issued_coupon_alone(
    coupon: Coupon, now: datetime, status: CouponStatus
) -> None:
    """The end of its time expires an issued coupon, to the microsecond, and no other."""
    assert coupon.status_at(now) is status


def test_redeeming_an_issued_coupon_marks_the_time_and_raises_the_version() -> None:
    """The redeemed coupon differs in status, time and version, and in nothing else."""
    assert redeem(COUPON, WITHIN) == REDEEMED


def test_redeeming_again_changes_nothing_even_after_the_end() -> None:
    """A repeated call finds the coupon as the first left it, also when its time is over by then."""
    assert redeem(REDEEMED, EXPIRES_AT + timedelta(days=1)) is REDEEMED


def test_redeeming_a_cancelled_coupon_is_refused() -> None:
    """A cancelled coupon cannot be spent."""
    with pytest.raises(CouponCancelledError):
        redeem(CANCELLED, WITHIN)


def test_redeeming_at_the_end_of_its_time_is_refused() -> None:
    """The end itself is too late."""
    with pytest.raises(CouponExpiredError):
        redeem(COUPON, EXPIRES_AT)


def test_cancelling_an_issued_coupon_takes_the_order_s_version() -> None:
    """The cancelled coupon bears the version of the cancellation."""
    assert cancel(COUPON, ORDER) == CANCELLED
    assert cancel(COUPON, replace(ORDER, version=9)).version == 9


def test_cancelling_with_an_old_version_still_raises_the_version() -> None:
    """An order at the coupon's own version cannot make the coupon look unchanged."""
    assert cancel(COUPON, COUPON).version == 2


def test_cancelling_again_changes_nothing() -> None:
    """A repeated order finds the coupon as the first left it."""
    assert cancel(CANCELLED, replace(ORDER, version=9)) is CANCELLED


def test_cancelling_a_redeemed_coupon_is_refused() -> None:
    """What was spent stays spent."""
    with pytest.raises(CouponUsedError):
        cancel(REDEEMED, ORDER)


@pytest.mark.parametrize(
    "order",
    [
        replace(ORDER, member_id="m-2"),
        replace(ORDER, reward_id="rw-2"),
        replace(ORDER, redemption_id=None),
        replace(ORDER, value=Money(501, "EUR")),
        replace(ORDER, value=Money(500, "USD")),
    ],
)
def test_order_for_another_coupon_under_the_same_code_is_refused(order: Coupon) -> None:
    """Nobody cancels a coupon by describing another one, whatever state it is in."""
    for coupon in (COUPON, REDEEMED, CANCELLED):
        with pytest.raises(CouponMismatchError):
            cancel(coupon, order)


@pytest.mark.parametrize(
    "change",
    [
        {"code": "0123456789ABCDEI"},
        {"member_id": "1"},
        {"reward_id": "1"},
        {"issued_at": ISSUED_AT.replace(tzinfo=None)},
        {"expires_at": EXPIRES_AT.replace(tzinfo=None)},
        {"expires_at": ISSUED_AT},
        {"version": 0},
        {"status": CouponStatus.EXPIRED},
        {"status": CouponStatus.REDEEMED},
        {"redeemed_at": WITHIN},
    ],
)
def test_coupon_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    """No coupon can be made with a misspelt name, a time without offset, or a status that does not fit."""
    with pytest.raises(ValueError, match=r"must|expired"):
        replace(COUPON, **change)  # type: ignore[arg-type]  # one field of each kind
