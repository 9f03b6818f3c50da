"""Hold the one lease by which a single instance works, and notice in time when it is gone.

Go programs take such a lease from a library that cancels a context when it is lost; so does this. The lease's end is
counted twice: by the database, whose clock decides who may have it, and here, pessimistically, on the monotonic clock,
from before the request that began or renewed it was sent, and with 1 % taken off. So this side gives up first.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

from uuid_utils.compat import uuid7

from patterns import Context, ContextError, background
from runtime.errors import DependencyUnavailable
from runtime.log_damper import LogDamper
from runtime.logs import get_logger
from services.consent_consumer.errors import LeaseLostError
from services.consent_consumer.settings import LeaseSettings

_log = get_logger(__name__)

_TRUSTED_SHARE: Final = 0.99  # of a lease's time: two clocks do not run alike, and the database's has milliseconds


class LeaseStore(Protocol):
    """What is asked of the database; `services.consent_consumer.store.ConsentStore` answers it."""

    async def take_lease(self, claim_id: str, holder: str, seconds: float) -> int | None: ...  # noqa: D102 - as there
    async def renew_lease(self, claim_id: str, seconds: float) -> None: ...  # noqa: D102 - as there
    async def give_back_lease(self, claim_id: str) -> None: ...  # noqa: D102 - as there


@dataclass(frozen=True, slots=True)
class LeaseStatistics:
    """A lease at one instant: `remaining_seconds` is 0 once it is lost, `unanswered` renewals came to nothing."""

    fence: int
    is_lost: bool
    remaining_seconds: float
    renewed: int
    unanswered: int


class Lease:
    """A lease that is held; for the event loop on which `LeaseKeeper.hold` gave it.

    Attributes:
        fence: The number under which positions are saved; a later lease has a higher one.
        lost: Ends when the lease has run out or another has it, its cause a `LeaseLostError`, and without one when it
            is given back. A stop of the process does not end it: what is in hand is still saved under the lease.
    """

    def __init__(self, fence: int, ends_at: float) -> None:
        self.fence = fence
        self.lost = background().with_cancel()
        self._loop = asyncio.get_running_loop()
        self._renewed = 0
        self._unanswered = 0
        self._ends_at = ends_at
        self._timer = self._loop.call_at(ends_at, self._run_out)

    def check(self) -> None:
        """Return if the lease is held now; to be asked before each step that has an effect outside.

        A process that was stopped (SIGSTOP) and goes on comes to other things before its loop ends `lost`. This looks
        at the clock itself.

        Raises:
            LeaseLostError: The lease is lost.
        """
        if self._loop.time() >= self._ends_at:
            self._run_out()
        if self.lost.is_done:
            raise LeaseLostError(str(self.lost.cause))

    def statistics(self) -> LeaseStatistics:
        """Return the state of the lease at this moment."""
        remaining = 0.0 if self.lost.is_done else max(0.0, self._ends_at - self._loop.time())
        return LeaseStatistics(self.fence, remaining <= 0, remaining, self._renewed, self._unanswered)

    def extend(self, ends_at: float) -> None:
        """Note a renewal that was confirmed: the lease ends at this time of the loop's clock."""
        self._renewed += 1
        self._ends_at = ends_at
        self._timer.cancel()
        self._timer = self._loop.call_at(ends_at, self._run_out)

    def note_unanswered(self) -> None:
        """Count a renewal of which it is not known whether it was made."""
        self._unanswered += 1

    def note_renewal_end(self, renewal: asyncio.Task[None]) -> None:
        """Lose the lease at once when its renewal has ended by an error: the block may not go on by luck."""
        if not renewal.cancelled() and (error := renewal.exception()) is not None:
            lost = LeaseLostError(f"its renewal has ended by {type(error).__name__}")
            lost.__cause__ = error
            self.lose(lost)

    def close(self) -> None:
        """End `lost` and be held no more."""
        self._timer.cancel()
        self.lost.cancel()

    def _run_out(self) -> None:
        self.lose(LeaseLostError("the lease has run out: no renewal was confirmed in its time"))

    def lose(self, error: LeaseLostError) -> None:
        """End `lost` with this cause; without effect if it has ended."""
        if not self.lost.is_done:
            _log.error("The lease is lost", fence=self.fence, reason=str(error))
            self.lost.cancel(error)


class LeaseKeeper:
    """What an instance does about the lease: wait for it, renew it, give it back.

    Args:
        store: Where the lease is.
        settings: Its times.
        holder: The instance's name, for operators; two instances of one name are two all the same.
        rng: Where the random part of the polls comes from; seed it in tests.
    """

    def __init__(
        self, store: LeaseStore, settings: LeaseSettings, holder: str, *, rng: random.Random | None = None
    ) -> None:
        self._store = store
        self._settings = settings
        self._holder = holder
        self._random = rng or random.Random()  # noqa: S311 - spreads polls in time, guards nothing

    @asynccontextmanager
    async def hold(self, ctx: Context) -> AsyncIterator[Lease]:
        """Enter a block when the lease is ours, renew it meanwhile, and give it back on leaving.

        It is asked for again and again while another instance has it or the database is away, for as long as the
        context lets it. A context that ends later ends nothing here. A cancel leaves no lease behind, unless the
        database cannot be told within one operation's time; then the lease ends by itself.

        Raises:
            ContextError: The context has ended before the lease was ours.
        """
        claim_id = str(uuid7())
        lease: Lease | None = None
        try:
            lease = await self._acquire(ctx, claim_id)
            with background().with_cancel() as renewing:
                renewal = asyncio.create_task(self._renew(renewing, lease, claim_id), name="lease")
                renewal.add_done_callback(lease.note_renewal_end)
                try:
                    yield lease
                finally:
                    renewing.cancel()
                    await asyncio.wait([renewal])
        finally:
            is_lost = lease is not None and lease.statistics().is_lost
            if lease is not None:
                lease.close()
            if not is_lost:
                await self._give_back(claim_id)

    async def _acquire(self, ctx: Context, claim_id: str) -> Lease:
        loop = asyncio.get_running_loop()
        damper = LogDamper()
        while True:
            sent_at = loop.time()
            try:
                fence = await ctx.run(self._store.take_lease(claim_id, self._holder, self._settings.seconds))
            except DependencyUnavailable as error:
                if damper.is_news("away"):
                    _log.warning("The lease could not be asked for", reason=str(error))
            else:
                if fence is not None:
                    _log.info("The lease is held", fence=fence)
                    return Lease(fence, self._ends_at(sent_at))
                if damper.is_news("held"):
                    _log.info("Another instance holds the lease: waiting")
            await ctx.run(asyncio.sleep(self._poll_seconds()))

    async def _renew(self, ctx: Context, lease: Lease, claim_id: str) -> None:
        """Renew the lease again and again until it is lost or the context ends; what had no answer is tried sooner."""
        loop = asyncio.get_running_loop()
        settings = self._settings
        damper = LogDamper()
        pause = settings.renew_seconds
        # Not by a cancel of the task: of one that meets the answer the driver may know nothing (`asyncio.wait_for`).
        with suppress(ContextError):
            while True:
                await ctx.run(asyncio.sleep(pause))
                sent_at = loop.time()
                try:
                    lease.check()
                    await ctx.run(self._store.renew_lease(claim_id, settings.seconds))
                except LeaseLostError as error:
                    lease.lose(error)
                    return
                except DependencyUnavailable as error:
                    lease.note_unanswered()
                    pause = min(settings.renew_seconds, self._poll_seconds())
                    if damper.is_news("renew"):
                        remaining = round(lease.statistics().remaining_seconds, 1)
                        _log.warning("The lease was not renewed", remaining_seconds=remaining, reason=str(error))
                else:
                    lease.extend(self._ends_at(sent_at))
                    pause = settings.renew_seconds

    async def _give_back(self, claim_id: str) -> None:
        try:
            await self._store.give_back_lease(claim_id)
        except DependencyUnavailable as error:
            _log.warning("The lease was not given back: it ends by itself", reason=str(error))

    def _ends_at(self, sent_at: float) -> float:
        return sent_at + self._settings.seconds * _TRUSTED_SHARE

    def _poll_seconds(self) -> float:
        return self._settings.poll_seconds * self._random.uniform(0.5, 1.0)
