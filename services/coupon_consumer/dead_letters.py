"""List, show, replay and remove dead letters: records that could not be stored as coupons.

Replaying stores a letter's event directly, by the same rules as if it came from Kafka now: the coupon's version
decides, so a letter that was overtaken meanwhile changes nothing, and replaying twice is the same as once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from loyalty.errors import EventError
from runtime.postgres import Connection, PostgresPool, Row
from services.coupon_consumer.event_row import EventRow, decode_row
from services.coupon_consumer.store import write_halving

_LIST: Final = """
select id, partition, record_offset, error_class, error_detail, length(payload) as payload_bytes, failed_at, replayed_at
from dead_letters
where consumer_group = $1 and topic = $2 and ($3 or replayed_at is null) and ($4::text is null or error_class = $4)
order by failed_at, partition, record_offset
limit $5
"""

_SHOW: Final = """
select id, topic_id, partition, record_offset, key, payload, headers, error_class, error_detail, failed_at, replayed_at
from dead_letters where consumer_group = $1 and topic = $2 and id = $3
"""

_TAKE: Final = """
select id, key, payload from dead_letters
where consumer_group = $1 and topic = $2 and replayed_at is null and not id = any ($3::uuid[])
    and ($4::uuid[] is null or id = any ($4)) and ($5::text is null or error_class = $5)
order by failed_at, partition, record_offset
limit $6
for update skip locked
"""

_DONE: Final = "update dead_letters set replayed_at = now() where id = any ($1::uuid[])"

_REMOVE: Final = """
delete from dead_letters where id in (
    select id from dead_letters
    where consumer_group = $1 and topic = $2 and failed_at < now() - $3::interval
    order by failed_at
    limit $4
)
"""

_REPLAY_ROWS: Final = 500


@dataclass(slots=True)
class Replayed:
    """What a replay did: letters whose event is settled, rows it changed, and letters that still cannot be stored."""

    settled: int = 0
    changed: int = 0
    failed: dict[UUID, str] = field(default_factory=dict)


class DeadLetters:
    """The dead letters of one consumer group and topic."""

    def __init__(self, pool: PostgresPool, *, group: str, topic: str) -> None:
        self._pool = pool
        self._place = (group, topic)

    async def list(self, *, error_class: str | None, with_replayed: bool, limit: int) -> Sequence[Row]:
        """Return letters without their contents, oldest first."""
        return await self._pool.fetch(_LIST, *self._place, with_replayed, error_class, limit)

    async def show(self, letter_id: UUID) -> Row | None:
        """Return one letter with all that is known of it."""
        return await self._pool.fetch_row(_SHOW, *self._place, letter_id)

    async def replay(self, *, ids: Sequence[UUID] | None, error_class: str | None, limit: int) -> Replayed:
        """Store the events of letters that were not replayed yet, oldest first, in transactions of some hundred.

        Args:
            ids: Only these; None means all.
            error_class: Only letters of this class; None means all.
            limit: How many letters to try at most.
        """
        replayed = Replayed()
        while (left := limit - replayed.settled - len(replayed.failed)) > 0:
            taken = await self._pool.transaction(
                self._replay_some, replayed, ids, error_class, min(left, _REPLAY_ROWS), retries=0
            )
            if not taken:
                break
        return replayed

    async def _replay_some(
        self,
        connection: Connection,
        replayed: Replayed,
        ids: Sequence[UUID] | None,
        error_class: str | None,
        limit: int,
    ) -> int:
        rows = await connection.fetch(_TAKE, *self._place, list(replayed.failed), ids, error_class, limit)
        decoded: list[EventRow] = []
        letters: list[UUID] = []
        for row in rows:
            try:
                decoded.append(decode_row(row["payload"], row["key"]))
                letters.append(row["id"])
            except EventError as error:
                replayed.failed[row["id"]] = f"{type(error).__name__}: {error}"
        changed, refused = await write_halving(connection, decoded)
        for index, name, detail in refused:
            replayed.failed[letters[index]] = f"{name}: {detail}"
        done = [letter for letter in letters if letter not in replayed.failed]
        await connection.execute(_DONE, done)
        replayed.changed += changed
        replayed.settled += len(done)
        return len(rows)

    async def remove_old(self, older_than: timedelta, limit: int) -> int:
        """Remove at most `limit` letters above an age, the oldest first, and return how many went."""
        tag = await self._pool.execute(_REMOVE, *self._place, older_than, limit)
        return int(tag.rpartition(" ")[2])
