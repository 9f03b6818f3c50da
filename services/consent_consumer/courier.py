"""Carry one stream's changes to Salesforce, in the order of each document, until each of them is settled.

A change is settled when Salesforce has stored it, or has something newer, or when it lies among the dead letters.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from patterns import Channel, Context, ContextError, ErrorGroup, WouldBlock, receive, select
from runtime.backoff import Backoff
from runtime.logs import get_logger
from services.consent_consumer.change_stream import Change
from services.consent_consumer.dead_letters import DeadLetter, DeadLetters, letter_id_of
from services.consent_consumer.lease import Lease
from services.consent_consumer.metrics import StreamMetrics
from services.consent_consumer.outcome import Outcome, Verdict
from services.consent_consumer.patience import Patience
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.settings import RetrySettings

_LETTER_LINES: Final = 5
_SETTLED: Final = frozenset({Verdict.STORED, Verdict.OLDER})

_log = get_logger(__name__)

Send = Callable[[Sequence[Change]], Awaitable[list[Outcome]]]
"""Makes one call, and returns what became of each change; `services.consent_consumer.update` has one a stream."""


@dataclass(slots=True)
class _Parcel:
    """The newest change of a document, and the numbers of all that it stands for."""

    change: Change
    numbers: list[int]
    first_tried_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    tries: int = 0
    due_at: float = 0.0
    backoff: Backoff | None = None


class Courier:
    """What becomes of the changes of one stream; for one task.

    One call is under way at a time, and holds one change a document: the newest that was read. What Salesforce would
    take later waits here for its time, and what comes meanwhile goes on; a newer change of the same document takes its
    place, with its tries. How many wait is bounded by the ledger.
    """

    def __init__(
        self,
        send: Send,
        ledger: StreamLedger,
        letters: DeadLetters,
        lease: Lease,
        metrics: StreamMetrics,
        *,
        retry: RetrySettings,
        events_max: int,
        reach: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._stream = metrics.stream
        self._send = send
        self._ledger = ledger
        self._letters = letters
        self._lease = lease
        self._metrics = metrics
        self._retry = retry
        self._events_max = events_max
        self._reach = reach
        self._later: dict[str, _Parcel] = {}
        self._patience = Patience(metrics, retry)

    async def carry(self, ctx: Context, changes: Channel[Change]) -> None:
        """Carry changes until the context ends, which is a clean exit; a call in hand is finished first.

        A call takes what has come by then: one change at once when there is but one, and more the longer calls take.
        What is not settled then is read again after the next start.

        Raises:
            LeaseLostError: Another instance may be at work.
            VersionOverflowError: as `record.version`.
        """
        first, stop = receive(changes), receive(ctx.done)
        with suppress(ContextError):
            while (chosen := await select(first, stop, timeout_seconds=self._next_due_seconds())) is not stop:
                self._reach("after-read")
                parcels = self._due()
                if chosen is first:
                    parcels = self._merged(parcels, [first.value, *_taken(changes, self._events_max - 1)])
                for start in range(0, len(parcels), self._events_max):
                    ctx.raise_if_done()
                    await self._deliver(ctx, parcels[start : start + self._events_max])

    def check(self) -> None:
        """Return when the last call was answered, for readiness.

        Raises:
            DependencyUnavailable: Salesforce, or the database with the dead letters, is away.
        """
        self._patience.check()

    def _next_due_seconds(self) -> float | None:
        if not self._later:
            return None
        return max(0.0, min(parcel.due_at for parcel in self._later.values()) - asyncio.get_running_loop().time())

    def _due(self) -> list[_Parcel]:
        now = asyncio.get_running_loop().time()
        keys = [key for key, parcel in self._later.items() if parcel.due_at <= now]
        return [self._later.pop(key) for key in keys]

    def _merged(self, due: Iterable[_Parcel], changes: Iterable[Change]) -> list[_Parcel]:
        """Return one parcel a document: of those that are due, of what was read, and of what waited for it."""
        parcels = {parcel.change.key: parcel for parcel in due}
        now = datetime.now(UTC)
        for change in changes:
            key = change.key
            known = parcels.get(key) or self._later.pop(key, None)
            if known is None:
                parcels[key] = _Parcel(change, [change.number], now)
            else:
                known.change = change
                known.numbers.append(change.number)
                parcels[key] = known
        return list(parcels.values())

    async def _deliver(self, ctx: Context, parcels: Sequence[_Parcel]) -> None:
        changes = [parcel.change for parcel in parcels]
        outcomes = await self._patience.ask(ctx, lambda: self._call(changes))
        self._reach("after-call")
        dead: list[DeadLetter] = []
        settled: list[_Parcel] = []
        for parcel, outcome in zip(parcels, outcomes, strict=True):
            parcel.tries += 1
            if outcome.verdict in _SETTLED:
                settled.append(parcel)
            elif outcome.may_be_tried_again(parcel.tries, self._retry):
                self._put_off(parcel)
            else:
                dead.append(self._letter(parcel, outcome))
                settled.append(parcel)
        self._metrics.count(outcomes)
        if dead:
            await self._patience.ask(ctx, lambda: self._letters.bury(dead))
            self._tell_of(dead)
        numbers = [number for parcel in settled for number in parcel.numbers]
        self._ledger.settle(*numbers)
        self._metrics.settle(len(numbers), dead=len(dead))

    async def _call(self, changes: Sequence[Change]) -> list[Outcome]:
        self._lease.check()
        self._reach("before-call")
        return await self._send(changes)

    def _put_off(self, parcel: _Parcel) -> None:
        parcel.backoff = parcel.backoff or Backoff(self._retry.first_seconds, self._retry.most_seconds)
        parcel.due_at = asyncio.get_running_loop().time() + parcel.backoff.fail()
        self._later[parcel.change.key] = parcel

    def _letter(self, parcel: _Parcel, outcome: Outcome) -> DeadLetter:
        event = parcel.change.event
        return DeadLetter(
            letter_id=letter_id_of(self._stream, event["_id"]),
            stream=self._stream,
            event=event,
            error_class=outcome.code,
            codes=(outcome.code,),
            tries=parcel.tries,
            cause=outcome.detail,
            first_tried_at=parcel.first_tried_at,
            failed_at=datetime.now(UTC),
            is_whole=parcel.change.is_whole,
            external_id=parcel.change.key,
        )

    def _tell_of(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters[:_LETTER_LINES]:
            _log.warning(
                "Change dead-lettered",
                stream=self._stream,
                letter_id=letter.letter_id,
                error_class=letter.error_class,
                cause=letter.cause,
                others=max(0, len(letters) - _LETTER_LINES),
            )


class Couriers:
    """The couriers of one stream, who make their calls side by side.

    All changes of a document go to the same one, so that they keep their order. Where details of one master meet in two
    calls, Salesforce may tell the second UNABLE_TO_LOCK_ROW, which is tried again as any other time.

    Args:
        couriers: One or more.
        changes_max: How many changes wait for each.
    """

    def __init__(self, couriers: Sequence[Courier], changes_max: int) -> None:
        self._couriers = couriers
        self._changes: list[Channel[Change]] = [Channel(changes_max) for _ in couriers]

    async def send(self, change: Change) -> None:
        """Hand a change to its document's courier, as soon as there is room; a cancel is as in `Channel.send`."""
        number = hash(change.key) % len(self._changes)
        await self._changes[number].send(change)

    async def carry(self, ctx: Context) -> None:
        """Carry changes until the context ends, as each `Courier` does; the first that fails takes the others with it.

        Raises:
            LeaseLostError, VersionOverflowError: as `Courier.carry`.
        """
        async with ErrorGroup(ctx) as group:
            for courier, changes in zip(self._couriers, self._changes, strict=True):
                await group.go(courier.carry, group.ctx, changes)

    def check(self) -> None:
        """Return when the last call of each was answered, for readiness.

        Raises:
            DependencyUnavailable: as `Courier.check`.
        """
        for courier in self._couriers:
            courier.check()


def _taken(changes: Channel[Change], most: int) -> list[Change]:
    taken: list[Change] = []
    with suppress(WouldBlock):
        while len(taken) < most:
            taken.append(changes.receive_nowait())
    return taken
