"""Look from time to time at what the streams' own work would not show: what they may lose, and what was given up.

A stream can go on from where it stands as long as the oplog reaches back that far. How far a stored position is behind
the oplog's end, against how far the oplog reaches back, says how near that is, also while nobody works at all.
"""

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

from bson import Timestamp

from patterns import Context, ContextError
from runtime.errors import DependencyUnavailable
from runtime.logs import get_logger
from services.consent_consumer.dead_letters import DeadLetters
from services.consent_consumer.metrics import ConsentMetrics
from services.consent_consumer.store import ConsentStore, Position

_TIMESTAMP: Final = 0x82  # what each token begins with since MongoDB 4.0.7: the type of the time that follows
_HEAD: Final = struct.Struct(">BII")

_log = get_logger(__name__)


class Watch:
    """One look every `check_seconds`, whoever has the lease: each is a few short questions, bounded as any other."""

    def __init__(
        self,
        store: ConsentStore,
        letters: DeadLetters,
        streams: Sequence[str],
        metrics: ConsentMetrics,
        *,
        check_seconds: float,
    ) -> None:
        self._store = store
        self._letters = letters
        self._streams = streams
        self._metrics = metrics
        self._check_seconds = check_seconds
        self._is_blind = False

    async def run(self, ctx: Context) -> None:
        """Look until the context ends."""
        try:
            while True:
                try:
                    await ctx.run(self.look())
                except DependencyUnavailable as error:
                    self._metrics.unknown()
                    if not self._is_blind:
                        self._is_blind = True
                        _log.warning("The oplog and the dead letters are not seen", error=str(error))
                else:
                    self._is_blind = False
                await ctx.run(asyncio.sleep(self._check_seconds))
        except ContextError:
            return

    async def look(self) -> None:
        """Look once, and show what was seen.

        Raises:
            DependencyUnavailable: The database does not answer, or a right is missing.
        """
        found = {stream: await self._store.find_position(stream) for stream in self._streams}
        oplog = await self._store.oplog_span()  # asked last: it ends behind every position
        letters = await self._letters.count()
        ages = {
            stream: oplog.last.time - reached(saved.position).time
            for stream, saved in found.items()
            if saved is not None and saved.position is not None
        }
        self._metrics.show(ages, window_seconds=oplog.last.time - oplog.first.time, dead_letters=letters)


def reached(position: Position) -> Timestamp:
    """Return the time up to which nothing is missing before a position, for a gauge: the token's own.

    On a quiet stream that is later than the last event's. Drivers have to take a token for opaque, and to go on from a
    position nobody needs this; where a token begins otherwise, the answer is the last event's time.
    """
    data = None if position.token is None else position.token.get("_data")
    if isinstance(data, str):
        try:
            kind, seconds, number = _HEAD.unpack(bytes.fromhex(data[: 2 * _HEAD.size]))
        except (ValueError, struct.error):
            return position.cluster_time
        if kind == _TIMESTAMP:
            return Timestamp(seconds, number)
    return position.cluster_time
