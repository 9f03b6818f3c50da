"""Cancel a redemption across two databases, so that a coupon is never both used and paid back.

coupon_api alone knows whether a coupon was used. So the order is:

1. `cancelling` is committed here: from now on the wish is known, whoever dies;
2. coupon_api is asked to cancel the coupon. Its answer is final: a cancelled coupon can never be used, a used one never
   cancelled. One that has not arrived there yet is entered as cancelled, so a late `coupon.issued` changes nothing;
3. one transaction gives points and stock back, says `cancelled`, and records the event; or, if the coupon is used, the
   row goes back to `issued`.

Paying back first and telling coupon_api by an event would leave a gap in which the member has both points and a coupon
that still opens doors. Asking first without step 1 would lose the refund when this process dies after the answer.
Every step may be repeated by anybody, at any time, with the same end, so after a crash the finisher simply goes on. See
`docs/decisions/cancelling-across-two-databases.md`.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from loyalty.coupon import Coupon
from loyalty.errors import CouponUsedError
from loyalty.reward import Redemption, RedemptionStatus
from patterns import Context, ErrorGroup, receive, select
from runtime.backoff import Backoff
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from runtime.telemetry import TraceContext, bind
from services.reward_store.errors import CancellationRejected
from services.reward_store.metrics import CancelMetrics
from services.reward_store.outbox import Backlog, Headers, event_headers
from services.reward_store.settings import CancelSettings

_log = get_logger(__name__)


class Cancellations(Protocol):
    """What cancelling needs of the store; every call is one transaction."""

    async def begin_cancel(self, redemption_id: UUID, member_id: str, lease: timedelta) -> Redemption:
        """Commit that a member's redemption is being cancelled, and keep finishers away for the time of the lease."""

    async def finish_cancel(self, redemption_id: UUID, headers: Headers) -> Redemption:
        """Give points and stock back and record the event, once, however many try."""

    async def refuse_cancel(self, redemption_id: UUID) -> None:
        """Take a cancellation back because the coupon is used; one that is finished stays finished."""

    async def put_off_cancel(self, redemption_id: UUID, least: timedelta, most: timedelta) -> None:
        """Keep finishers away for as long as the cancellation has lasted, within bounds: the wait doubles each time."""

    async def cancelling(self) -> Backlog:
        """Count the cancellations that are not finished."""

    async def claim_cancellations(self, limit: int, lease: timedelta) -> list[Redemption]:
        """Take over cancellations that nobody works on any more, for the time of the lease."""


class Coupons(Protocol):
    """Whoever knows whether a coupon was used."""

    async def cancel(self, coupon: Coupon) -> None:
        """Make sure that the coupon can never be used again; may be repeated.

        Raises:
            CouponUsedError: It was used; that is final, too.
            CancellationRejected: Not known until somebody has mended something.
            DependencyUnavailable: Not known; ask again.
        """


class Canceller:
    """Cancel redemptions, and finish what others left unfinished.

    Args:
        store: where redemptions are.
        coupons: who knows whether a coupon was used.
        settings: bounds and times of the finisher.
        metrics: what it tells about itself.
        reach: called with the name of each crash point that is passed.
    """

    def __init__(
        self,
        store: Cancellations,
        coupons: Coupons,
        settings: CancelSettings,
        metrics: CancelMetrics,
        reach: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._coupons = coupons
        self._settings = settings
        self._metrics = metrics
        self._reach = reach
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._rejected_most = timedelta(seconds=settings.rejected_most_seconds)

    async def cancel(self, redemption_id: UUID, member_id: str) -> Redemption:
        """Cancel a member's redemption; one that is cancelled already comes back as it is.

        A caller that is cancelled, or told of a missing dependency, leaves the wish recorded: the finisher goes on.

        Raises:
            RedemptionNotFoundError: The member has no such redemption.
            CouponUsedError: The coupon is used; the redemption stands.
            DependencyUnavailable: Not finished yet; asking again joins in.
        """
        redemption = await self._store.begin_cancel(redemption_id, member_id, self._lease)
        if redemption.status is RedemptionStatus.CANCELLED:
            return redemption
        self._reach("after-cancelling")
        return await self._finish(redemption)

    async def _finish(self, redemption: Redemption) -> Redemption:
        try:
            await self._coupons.cancel(redemption.coupon())
            self._reach("after-coupon-cancelled")
            finished = await self._store.finish_cancel(redemption.redemption_id, event_headers())
        except CouponUsedError:
            await self._store.refuse_cancel(redemption.redemption_id)
            self._metrics.ended.labels("refused").inc()
            raise
        except CancellationRejected:
            self._metrics.ended.labels("rejected").inc()
            await self._store.put_off_cancel(redemption.redemption_id, self._lease, self._rejected_most)
            raise
        except DependencyUnavailable:
            self._metrics.ended.labels("put off").inc()
            raise
        self._reach("after-cancelled")
        self._metrics.ended.labels("cancelled").inc()
        return finished

    async def run(self, ctx: Context) -> None:
        """Finish abandoned cancellations until the context ends; those in hand are finished first.

        A dependency that cannot do its work now is tried again, ever more slowly; any other error ends the finisher.
        """
        interval = self._settings.interval_seconds
        backoff = Backoff(interval, max(interval, self._settings.lease_seconds))
        while not ctx.is_done:
            try:
                await self._measure()
                await self.finish_abandoned(ctx)
            except DependencyUnavailable as error:
                pause = backoff.fail()
                _log.warning("Finishing cancellations failed", error=str(error), retry_seconds=round(pause, 3))
            else:
                backoff.reset()
                pause = interval
            await select(receive(ctx.done), timeout_seconds=pause)

    async def _measure(self) -> None:
        try:
            self._metrics.show(await self._store.cancelling())
        except DependencyUnavailable:
            self._metrics.unknown()
            raise

    async def finish_abandoned(self, ctx: Context) -> int:
        """Take over one batch, finish what can be finished, and return how many were taken.

        Only those are claimed that are begun at once: the lease of one that had to wait could end before its turn, and
        another replica would take it over too. The end of the context lets no further claim begin. One that is rejected
        waits for its own next turn and slows no other down.

        Raises:
            DependencyUnavailable: the first reason why one could not be finished; the others were tried all the same.
        """
        failures: list[DependencyUnavailable] = []
        taken = 0
        while taken < self._settings.batch_rows and not ctx.is_done:
            limit = min(self._settings.concurrency, self._settings.batch_rows - taken)
            claimed = await self._store.claim_cancellations(limit, self._lease)
            self._metrics.taken_over.inc(len(claimed))
            taken += len(claimed)
            async with ErrorGroup() as group:
                for redemption in claimed:
                    await group.go(self._finish_one, redemption, failures)
            if len(claimed) < limit:
                break
        if failures:
            raise failures[0]
        return taken

    async def _finish_one(self, redemption: Redemption, failures: list[DependencyUnavailable]) -> None:
        with bind(TraceContext.new()):
            try:
                await self._finish(redemption)
            except CouponUsedError:
                _log.info("An abandoned cancellation was refused", redemption_id=str(redemption.redemption_id))
            except CancellationRejected:
                return  # told of, counted and put off already
            except DependencyUnavailable as error:
                failures.append(error)
            else:
                _log.info("An abandoned cancellation was finished", redemption_id=str(redemption.redemption_id))
