"""Know how far one stream is done: the ledger between what was read in order and what is settled in any order.

What may be saved is the place behind the last event before which nothing is unsettled. A Go program would guard this
with a `sync.Mutex`; here no method waits between two of its steps, so one event loop's tasks may share it as it is.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from bson import Timestamp

from patterns import WouldBlock
from services.consent_consumer.store import Position


@dataclass(frozen=True, slots=True)
class StreamLedgerStatistics:
    """What a ledger holds: `unsettled` events are not done yet, and `held` are these with all that is behind the first.

    A death now would have them read again, and what was passed since the last save as well.
    """

    registered: int
    settled: int
    held: int
    unsettled: int
    oldest_seconds: float


@dataclass(slots=True)
class _Entry:
    position: Position
    registered_at: float
    is_settled: bool = False


class StreamLedger:
    """The events of one stream that were read and not passed yet; for the tasks of one event loop, with one reader.

    Args:
        in_flight_max: How many events may be held at once. A settled event is held as long as one before it is not
            settled.
        begin: Where the stream was opened; None before the first position is known.
        unsaved_max: How many events may be passed and not saved; None where nothing is saved. With those that are held
            they are what is read again after a death.
        clock: Seconds, for the ages.

    Raises:
        ValueError: A bound is below 1.
    """

    def __init__(
        self,
        in_flight_max: int,
        begin: Position | None = None,
        *,
        unsaved_max: int | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if in_flight_max < 1:
            raise ValueError("in_flight_max must be 1 or more")
        if unsaved_max is not None and unsaved_max < 1:
            raise ValueError("unsaved_max must be 1 or more")
        self._in_flight_max = in_flight_max
        self._unsaved_max = math.inf if unsaved_max is None else unsaved_max
        self._unsaved = 0
        self._offered = 0
        self._clock = clock
        self._held: deque[_Entry] = deque()
        self._unsettled: dict[int, _Entry] = {}
        self._registered = 0
        self._read = begin
        self._passed = begin
        self._saved = begin
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_settled = asyncio.Event()
        self._is_settled.set()
        self._is_due = asyncio.Event()

    async def register(self, position: Position) -> int:
        """Take the next event in, as soon as there is room, and return its number for `settle`.

        A cancel while it waits takes nothing in.

        Raises:
            ValueError: The event is older than the one before, which a stream never gives: do not go on.
        """
        while not self._has_room.is_set():  # what a save has made may be gone again before this task's turn
            await self._has_room.wait()
        return self.register_nowait(position)

    def register_nowait(self, position: Position) -> int:
        """Do as `register`, without waiting.

        Raises:
            WouldBlock: There is no room.
            ValueError: As `register`.
        """
        if not self._has_room.is_set():
            raise WouldBlock
        if self._read is not None and position.cluster_time < self._read.cluster_time:
            raise ValueError(f"an event of {position.cluster_time} behind one of {self._read.cluster_time}")
        entry = _Entry(position, self._clock())
        self._read = position
        self._held.append(entry)
        self._unsettled[self._registered] = entry
        self._is_settled.clear()
        self._registered += 1
        if len(self._held) >= self._in_flight_max:
            self._has_room.clear()
        return self._registered - 1

    def settle(self, *numbers: int) -> None:
        """Note that events are done: stored by Salesforce, refused as older ones, or among the dead letters.

        Raises:
            ValueError: One of them is not unsettled: two parts of the program think that it is theirs.
        """
        for number in numbers:
            entry = self._unsettled.pop(number, None)
            if entry is None:
                raise ValueError(f"event {number} is not unsettled")
            entry.is_settled = True
        while self._held and self._held[0].is_settled:
            self._passed = self._held.popleft().position
            self._unsaved += 1
        self._note_room()
        if not self._unsettled:
            self._is_settled.set()

    async def wait_settled(self) -> None:
        """Return when every event that was registered is settled."""
        await self._is_settled.wait()

    async def wait_due(self) -> None:
        """Return when so much is passed and not saved that a save should not wait for its time."""
        await self._is_due.wait()

    def quiet(self, token: Mapping[str, Any], cluster_time: Timestamp | None = None) -> None:
        """Note the stream's own latest token, of a time when it had nothing more to give (`postBatchResumeToken`).

        Args:
            token: The driver's, opaque: behind every event that was registered.
            cluster_time: One that no event to come precedes, if it is known; else that of the last event stays.
        """
        time = cluster_time or Timestamp(0, 0)
        if self._read is not None:
            if self._read.token == token:
                return  # that of the last event itself, which may be an invalidate
            time = max(time, self._read.cluster_time)
        self._read = Position(time, token)
        if self._held:
            # No event has come since the last one, so to be behind that is to be here.
            self._held[-1].position = self._read
        else:
            self._passed = self._read

    def savable(self) -> Position | None:
        """Return how far the stream is done, or None when that is saved already, or not known yet.

        That is behind the last event of the settled prefix, and when nothing is unsettled behind the quiet time since.
        """
        self._offered = self._unsaved
        return None if self._passed == self._saved else self._passed

    def saved(self, position: Position) -> None:
        """Note what was saved, as `savable` gave it last."""
        self._saved = position
        self._unsaved -= self._offered
        self._offered = 0
        self._note_room()

    def statistics(self) -> StreamLedgerStatistics:
        """Return what the ledger holds at this moment."""
        return StreamLedgerStatistics(
            registered=self._registered,
            settled=self._registered - len(self._unsettled),
            held=len(self._held),
            unsettled=len(self._unsettled),
            oldest_seconds=self._clock() - self._held[0].registered_at if self._held else 0.0,
        )

    def _note_room(self) -> None:
        _put(self._has_room, len(self._held) < self._in_flight_max and self._unsaved < self._unsaved_max)
        _put(self._is_due, self._unsaved >= self._unsaved_max / 2)


def _put(event: asyncio.Event, is_so: bool) -> None:
    if is_so:
        event.set()
    else:
        event.clear()
