"""Who may touch which partition now: one ledger between the thread that reads and the loop that stores.

A partition's number of generation changes with every assignment and every new position. Work carries the generation it
was read under, so whatever comes late is told apart from what is current. Go keeps such a map behind a `sync.Mutex` and
a `sync.Cond`; so does this.
"""

import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LedgerStatistics:
    """What the ledger holds: partitions owned, partitions in work, and bytes handed over and not yet given back."""

    owned: int
    in_work: int
    bytes_held: int
    bytes_peak: int


class PartitionLedger:
    """The partitions this member owns, their generations, and how many bytes are out; every method is atomic.

    Args:
        bytes_max: How many bytes may be out at once. One taker larger than that passes when nothing else is out.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._bytes_peak = 0
        self._last = 0
        self._generations: dict[int, int] = {}
        self._in_work: dict[int, int] = {}
        self._stored: dict[int, int] = {}
        self._changed = threading.Condition()

    def assign(self, partitions: Iterable[int]) -> dict[int, int]:
        """Take partitions over, each under a new generation."""
        with self._changed:
            return {partition: self._renew(partition) for partition in partitions}

    def revoke(self, partitions: Iterable[int]) -> None:
        """Give partitions up: no work on them can begin any more."""
        with self._changed:
            for partition in partitions:
                self._generations.pop(partition, None)

    def renew(self, partition: int, generation: int) -> int | None:
        """Begin a new generation of an owned partition; None when this one is over already."""
        with self._changed:
            if self._generations.get(partition) != generation:
                return None
            return self._renew(partition)

    def _renew(self, partition: int) -> int:
        self._last += 1
        self._generations[partition] = self._last
        return self._last

    def generation(self, partition: int) -> int | None:
        """Return the current generation, or None for a partition that is not ours."""
        with self._changed:
            return self._generations.get(partition)

    def owned(self) -> dict[int, int]:
        """Return a copy of the owned partitions and their generations."""
        with self._changed:
            return dict(self._generations)

    def begin(self, partition: int, generation: int) -> bool:
        """Begin work on a partition, if the generation is current; `end` must follow."""
        with self._changed:
            if self._generations.get(partition) != generation:
                return False
            self._in_work[partition] = self._in_work.get(partition, 0) + 1
            return True

    def end(self, partition: int) -> None:
        """End work that was begun."""
        with self._changed:
            left = self._in_work[partition] - 1
            if left:
                self._in_work[partition] = left
            else:
                del self._in_work[partition]
                self._changed.notify_all()

    def stored(self, partition: int, next_offset: int) -> None:
        """Note how far a partition is stored, for Kafka's lag tools; nothing else looks at it."""
        with self._changed:
            if partition in self._generations or partition in self._in_work:
                self._stored[partition] = next_offset

    def take_stored(self, partitions: Collection[int] | None = None) -> dict[int, int]:
        """Take the notes on these partitions, or on all."""
        with self._changed:
            taken = {p: n for p, n in self._stored.items() if partitions is None or p in partitions}
            for partition in taken:
                del self._stored[partition]
            return taken

    def is_in_work(self, partition: int) -> bool:
        """Whether work on the partition has begun and not ended."""
        with self._changed:
            return partition in self._in_work

    def wait_idle(self, partitions: Collection[int], timeout_seconds: float) -> bool:
        """Block this thread until no work on the partitions is under way; False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_work.keys().isdisjoint(partitions), timeout_seconds)

    def take_bytes(self, count: int, timeout_seconds: float) -> bool:
        """Block this thread until so many bytes may go out; False when the time is over first."""
        give_up_at = time.monotonic() + timeout_seconds
        with self._changed:
            while self._bytes and self._bytes + count > self._bytes_max:
                if not self._changed.wait(give_up_at - time.monotonic()):
                    return False
            self._bytes += count
            self._bytes_peak = max(self._bytes_peak, self._bytes)
            return True

    def give_bytes(self, count: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._bytes -= count
            self._changed.notify_all()

    def statistics(self) -> LedgerStatistics:
        """Return what the ledger holds at this moment."""
        with self._changed:
            return LedgerStatistics(len(self._generations), len(self._in_work), self._bytes, self._bytes_peak)
