"""Keep coupons in Postgres: the only file of this service with SQL.

Time is the database's clock alone. Reads and guarded writes are one statement each, committed on its own, so each is
one round trip; what must be together is one transaction.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol, cast
from uuid import UUID

from asyncpg import Record

from loyalty.coupon import Coupon, CouponStatus
from loyalty.errors import (
    CouponCancelledError,
    CouponExpiredError,
    CouponMismatchError,
    CouponNotFoundError,
    CouponUsedError,
    ExpiryInPastError,
)
from loyalty.money import Money
from runtime.postgres import Connection, PostgresPool
from runtime.stored_answer import IdempotencyKey, StoredAnswer, claim_key, delete_old_keys, store_answer
from services.coupon_api.coupon_view import CouponView, encode
from services.coupon_api.trace import Tracer

CRASH_POINTS: Final = ("after-claim", "after-insert", "after-commit", "after-redeem")

# The columns are named and ordered as in CouponView. The identifier of a redemption travels as text, which is what JSON
# needs and what the driver's own UUID class would cost a detour to become.
_VIEW: Final = """
code, member_id, reward_id, redemption_id::text as redemption_id, value_cents, currency, issued_at, expires_at,
case when status = 'issued' and expires_at <= now() then 'expired' else status end as status, redeemed_at, version
"""


def _sql(statement: str) -> str:
    return statement.replace(":view", _VIEW)


FIND: Final = _sql("select :view from coupons where code = $1")

_PAGE: Final = _sql("""
select :view from coupons where member_id = $1 order by issued_at desc, code desc limit $2
""")

_PAGE_AFTER: Final = _sql("""
select :view from coupons where member_id = $1 and (issued_at, code) < ($3, $4)
order by issued_at desc, code desc limit $2
""")

_ISSUE: Final = _sql("""
insert into coupons
    (code, member_id, reward_id, value_cents, currency, issued_at, expires_at, status, version, source)
select $1, $2, $3, $4, $5, now(), $6, 'issued', 1, 'operator' where $6 > now()
returning :view
""")

_REDEEM: Final = _sql("""
update coupons set status = 'redeemed', redeemed_at = now(), version = version + 1, updated_at = now()
where code = $1 and member_id = $2 and status = 'issued' and expires_at > now()
returning :view
""")

_CANCEL: Final = _sql("""
insert into coupons
    (code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, status, version, source)
values ($1, $2, $3, $4, $5, $6, $7, $8, 'cancelled', $9, 'cancellation')
on conflict (code) do update
set status = 'cancelled', version = greatest(coupons.version + 1, excluded.version), updated_at = now()
where coupons.status = 'issued'
    and (coupons.member_id, coupons.reward_id, coupons.value_cents, coupons.currency)
        = (excluded.member_id, excluded.reward_id, excluded.value_cents, excluded.currency)
    and coupons.redemption_id is not distinct from excluded.redemption_id
returning :view
""")


class PagePosition(NamedTuple):
    """The last coupon of a page; the next page begins behind it."""

    issued_at: datetime
    code: str


class IssueOrder(NamedTuple):
    """A coupon that an operator wants to exist, under a code that was drawn for it."""

    code: str
    member_id: str
    reward_id: str
    value: Money
    expires_at: datetime


class CouponStore(Protocol):
    """What the routes need of a store; every call is one step that happens whole or not at all."""

    async def find_coupon(self, code: str) -> CouponView | None:
        """Return the coupon, or None when there is none of that code."""

    async def list_coupons(self, member_id: str, limit: int, after: PagePosition | None) -> list[CouponView]:
        """Return at most `limit` of a member's coupons, newest first, from behind `after` on.

        A coupon that appears or changes while somebody pages never makes another one appear twice or not at all.
        """

    async def issue_coupon(self, order: IssueOrder, key: IdempotencyKey) -> StoredAnswer:
        """Issue a coupon and keep its answer under the key, or return the answer that is kept there.

        Raises:
            ExpiryInPastError: `expires_at` is not after now.
            RequestInProgressError, IdempotencyKeyReusedError: as `runtime.stored_answer.claim_key`.
        """

    async def redeem_coupon(self, code: str, member_id: str) -> CouponView:
        """Spend a member's own coupon; one that is spent already is returned as it was left.

        Of any number of racing calls exactly one spends it. All of them return the same view.

        Raises:
            CouponNotFoundError: There is none, or it is another member's.
            CouponCancelledError, CouponExpiredError: It cannot be spent any more.
        """

    async def cancel_coupon(self, order: Coupon) -> CouponView:
        """Cancel the coupon that the order describes; one that is cancelled already is returned as it was left.

        A coupon that has not arrived yet is inserted as cancelled, at the order's version: when its `coupon.issued`
        comes late, its version is older, so it is skipped.

        Raises:
            CouponUsedError: It was redeemed.
            CouponMismatchError: Another coupon bears this code.
        """

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """Remove at most `limit` idempotency keys older than that and return how many went."""


class PostgresCouponStore:
    """The store on a pool; each call is a span of the tracer.

    Any call may raise `runtime.errors.DependencyUnavailable`. A cancelled call has happened whole or not at all, and
    which of the two is not known: the idempotency of every write makes asking again safe.

    Args:
        pool: Where the database is.
        tracer: Takes the spans.
        reach: Called at each of `CRASH_POINTS`: three on the way to a coupon that is issued, one where one is spent.
    """

    def __init__(self, pool: PostgresPool, tracer: Tracer, reach: Callable[[str], None] = lambda _: None) -> None:
        self._pool = pool
        self._tracer = tracer
        self._reach = reach

    async def find_coupon(self, code: str) -> CouponView | None:
        """See `CouponStore`."""
        finish = self._tracer.start("find_coupon")
        try:
            row = await self._pool.fetch_row(FIND, code)
        finally:
            finish()
        return None if row is None else _view(row)

    async def list_coupons(self, member_id: str, limit: int, after: PagePosition | None) -> list[CouponView]:
        """See `CouponStore`."""
        finish = self._tracer.start("list_coupons")
        try:
            if after is None:
                rows = await self._pool.fetch(_PAGE, member_id, limit)
            else:
                rows = await self._pool.fetch(_PAGE_AFTER, member_id, limit, *after)
        finally:
            finish()
        return [_view(row) for row in rows]

    async def issue_coupon(self, order: IssueOrder, key: IdempotencyKey) -> StoredAnswer:
        """See `CouponStore`."""
        finish = self._tracer.start("issue_coupon")
        try:
            answer = await self._pool.transaction(_issue, order, key, self._reach)
        finally:
            finish()
        self._reach("after-commit")
        return answer

    async def redeem_coupon(self, code: str, member_id: str) -> CouponView:
        """See `CouponStore`."""
        finish = self._tracer.start("redeem_coupon")
        try:
            row = await self._pool.fetch_row(_REDEEM, code, member_id)
            self._reach("after-redeem")
            return _view(row) if row is not None else await self._redeemed_before(code, member_id)
        finally:
            finish()

    async def _redeemed_before(self, code: str, member_id: str) -> CouponView:
        """Return the coupon that the guard turned away, if it is spent, or say why it cannot be."""
        row = await self._pool.fetch_row(FIND, code)
        if row is None or row["member_id"] != member_id:
            raise CouponNotFoundError
        match row["status"]:
            case CouponStatus.REDEEMED:
                return _view(row)
            case CouponStatus.CANCELLED:
                raise CouponCancelledError
            case CouponStatus.EXPIRED:
                raise CouponExpiredError
        # It arrived between the two statements: when it was asked for, it was not there.
        raise CouponNotFoundError

    async def cancel_coupon(self, order: Coupon) -> CouponView:
        """See `CouponStore`."""
        finish = self._tracer.start("cancel_coupon")
        try:
            row = await self._pool.fetch_row(
                _CANCEL,
                order.code,
                order.member_id,
                order.reward_id,
                order.redemption_id,
                order.value.cents,
                order.value.currency,
                order.issued_at,
                order.expires_at,
                order.version,
            )
            return _view(row) if row is not None else await self._cancelled_before(order)
        finally:
            finish()

    async def _cancelled_before(self, order: Coupon) -> CouponView:
        """Return the coupon that the guard turned away, if it is cancelled, or say why it cannot be."""
        row = await self._pool.fetch_row(FIND, order.code)
        if row is None:
            raise AssertionError("a coupon that was in the way is gone, and nobody may delete one")
        view = _view(row)
        if _identity(view) != (order.member_id, order.reward_id, order.redemption_id, order.value):
            raise CouponMismatchError
        if view["status"] == CouponStatus.REDEEMED:
            raise CouponUsedError
        return view

    async def delete_old_keys(self, older_than: timedelta, limit: int) -> int:
        """See `CouponStore`."""
        return await self._pool.transaction(delete_old_keys, older_than, limit)


def _view(row: Record) -> CouponView:
    return cast("CouponView", dict(row))


def _identity(view: CouponView) -> tuple[str, str, UUID | None, Money]:
    redemption_id = view["redemption_id"]
    return (
        view["member_id"],
        view["reward_id"],
        None if redemption_id is None else UUID(redemption_id),
        Money(view["value_cents"], view["currency"]),
    )


async def _issue(
    connection: Connection, order: IssueOrder, key: IdempotencyKey, reach: Callable[[str], None]
) -> StoredAnswer:
    stored = await claim_key(connection, key)
    if stored is not None:
        return stored
    reach("after-claim")
    row = await connection.fetchrow(
        _ISSUE,
        order.code,
        order.member_id,
        order.reward_id,
        order.value.cents,
        order.value.currency,
        order.expires_at,
    )
    if row is None:
        raise ExpiryInPastError
    reach("after-insert")
    answer = StoredAnswer(status=201, body=encode(_view(row)))
    await store_answer(connection, key, answer)
    return answer
