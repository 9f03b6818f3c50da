"""Keep coupons, stored offsets and dead letters in Postgres: with `dead_letters.py` the only SQL of this service.

Rows, dead letters and the next offsets are one transaction. The offsets come first and are the guard: the transaction
goes on only if every partition still stands where this member left it, and it holds their rows until it is over. So a
member that was overtaken while it slept changes nothing, and nothing is stored twice or left out.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol, cast

import asyncpg
import orjson

from loyalty.identifier import new_id
from runtime.errors import DependencyUnavailable
from runtime.kafka_reader import Record
from runtime.logs import get_logger
from runtime.postgres import Connection, PostgresPool
from services.coupon_consumer.decode import Headers, Poison, headers_of
from services.coupon_consumer.errors import OwnershipLostError, RowRefusedError
from services.coupon_consumer.event_row import EventRow, newest

_log = get_logger(__name__)

REFUSALS: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""What Postgres says of a row that it will never take."""

_HEADERS_LEFT_OUT: Final = "; its headers are left out: a name is not UTF-8"

_ADVANCE: Final = """
update consumer_offsets as stored set next_offset = given.next_offset, updated_at = now()
from unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[])
    as given (topic_id, partition, expected, next_offset)
where stored.consumer_group = $1 and stored.topic = $2
    and stored.topic_id = given.topic_id and stored.partition = given.partition
    and stored.next_offset = given.expected and given.next_offset > given.expected
returning stored.partition
"""

# Each column travels as one text of lines, which costs the driver a fifth of an array: it looks at each element twice.
# No field that was understood holds a line end. Times are microseconds since the epoch, added in two parts, because an
# interval is multiplied by a double, which has no room for those of the next centuries.
# Of two events of one coupon the higher version wins whole, in whatever order they come. A redeemed coupon is done.
_WRITE: Final = r"""
insert into coupons as known (
    code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, version, status, source
)
select code, member_id, reward_id, redemption_id, value_cents, currency,
    timestamptz 'epoch' + issued_us / 1000000 * interval '1 s' + issued_us % 1000000 * interval '1 us',
    timestamptz 'epoch' + expires_us / 1000000 * interval '1 s' + expires_us % 1000000 * interval '1 us',
    version, case when is_cancelled then 'cancelled' else 'issued' end, 'event'
from unnest(
    string_to_array($1, e'\n'), string_to_array($2, e'\n'), string_to_array($3, e'\n'),
    string_to_array($4, e'\n', '')::uuid[], string_to_array($5, e'\n')::bigint[], string_to_array($6, e'\n'),
    string_to_array($7, e'\n')::bigint[], string_to_array($8, e'\n')::bigint[],
    string_to_array($9, e'\n')::bigint[], string_to_array($10, e'\n')::boolean[]
) as event (
    code, member_id, reward_id, redemption_id, value_cents, currency, issued_us, expires_us, version, is_cancelled
)
on conflict (code) do update set
    member_id = excluded.member_id, reward_id = excluded.reward_id, redemption_id = excluded.redemption_id,
    value_cents = excluded.value_cents, currency = excluded.currency, issued_at = excluded.issued_at,
    expires_at = excluded.expires_at, version = excluded.version, status = excluded.status, source = excluded.source,
    updated_at = now()
where known.version < excluded.version and known.status <> 'redeemed'
"""

_BURY: Final = """
insert into dead_letters (
    id, consumer_group, topic, topic_id, partition, record_offset, key, payload, headers, error_class, error_detail
)
select id, $1, $2, topic_id, partition, record_offset, key, payload, headers::jsonb, error_class, error_detail
from unnest(
    $3::uuid[], $4::text[], $5::integer[], $6::bigint[], $7::bytea[], $8::bytea[], $9::text[], $10::text[], $11::text[]
) as letter (id, topic_id, partition, record_offset, key, payload, headers, error_class, error_detail)
on conflict (consumer_group, topic, topic_id, partition, record_offset) do nothing
"""

_LOAD: Final = """
select partition, next_offset from consumer_offsets
where consumer_group = $1 and topic = $2 and topic_id = $3 and partition = any ($4::integer[])
"""

_BEGIN_AT: Final = """
insert into consumer_offsets (consumer_group, topic, topic_id, partition, next_offset)
select $1, $2, $3, partition, next_offset from unnest($4::integer[], $5::bigint[]) as first (partition, next_offset)
on conflict do nothing
"""

_KNOWS_OTHER: Final = """
select exists (select from consumer_offsets where consumer_group = $1 and topic = $2 and topic_id <> $3)
"""

_MOVE: Final = """
insert into consumer_offsets (consumer_group, topic, topic_id, partition, next_offset)
select $1, $2, $3, partition, next_offset from unnest($4::integer[], $5::bigint[]) as moved (partition, next_offset)
on conflict (consumer_group, topic, topic_id, partition) do update
set next_offset = excluded.next_offset, updated_at = now()
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transaction takes one partition: from the offset that must be stored now to the next one."""

    topic_id: str
    partition: int
    expected: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Work:
    """What one transaction stores: rows, each with the record it came from at the same index, and poison.

    The records of a partition are in the order of their offsets.
    """

    progress: Sequence[Progress]
    rows: Sequence[EventRow]
    records: Sequence[Record]
    poison: Sequence[Poison]

    def part(self, progress: Sequence[Progress]) -> "Work":
        """Return what of this work lies within these steps."""
        steps = {step.partition: range(step.expected, step.next_offset) for step in progress}

        def is_within(record: Record) -> bool:
            return record.offset() in steps.get(cast("int", record.partition()), ())

        kept = [index for index, record in enumerate(self.records) if is_within(record)]
        return Work(
            progress,
            [self.rows[index] for index in kept],
            [self.records[index] for index in kept],
            [each for each in self.poison if is_within(each.record)],
        )

    def halves(self, refusal: RowRefusedError) -> "list[Work]":
        """Return what to store instead, in this order, when Postgres refuses a row of this: two halves of it.

        Work of several partitions is halved by partition, work of one by offset. A row that is alone is the refused
        one: then the same work is returned, with that row as poison.
        """
        if len(self.rows) == 1:
            poison = Poison(self.records[0], refusal.error_class, refusal.error_detail)
            return [Work(self.progress, [], [], [*self.poison, poison])]
        if len(self.progress) > 1:
            middle = len(self.progress) // 2
            first, second = self.progress[:middle], self.progress[middle:]
        else:
            offset = cast("int", self.records[len(self.records) // 2].offset())
            first = [replace(self.progress[0], next_offset=offset)]
            second = [replace(self.progress[0], expected=offset)]
        return [self.part(first), self.part(second)]


@dataclass(frozen=True, slots=True)
class Saved:
    """What a transaction did.

    `stored` events changed a coupon; `skipped` ones had nothing new to say (a duplicate, an older version, one that was
    overtaken within the transaction, or any event of a redeemed coupon); `dead_lettered` could not be stored.
    """

    stored: int
    skipped: int
    dead_lettered: int


class Store(Protocol):
    """What reading needs of the tables; `CouponStore` has it."""

    async def load_offsets(self, topic_id: str, partitions: Iterable[int]) -> dict[int, int]: ...  # noqa: D102 - as there
    async def begin_at(self, topic_id: str, offsets: Mapping[int, int]) -> None: ...  # noqa: D102 - as there
    async def knows_other_topic(self, topic_id: str) -> bool: ...  # noqa: D102 - as there
    async def save(self, work: Work) -> Saved: ...  # noqa: D102 - as there


Note = Callable[[Work, Saved], None]
"""Hears of a part, with its dead letters as its poison, as soon as it is stored."""


async def save_by_halves(store: Store, work: Work, note: Note) -> None:
    """Store work in one transaction; while Postgres refuses a row of it, in halves, and their halves, in order.

    A row refused alone becomes a dead letter. Each part is a transaction of its own, so that a try keeps what it came
    to: all of them in one would have to fit into one try, and work that does not would be tried for ever. Whatever ends
    this early, a cancel too: what was noted is stored, nothing behind it is, save perhaps a part whose commit was not
    answered.

    Raises:
        OwnershipLostError, DependencyUnavailable: As `Store.save`, for some part.
    """
    parts = [work]
    while parts:
        part = parts.pop()
        try:
            saved = await store.save(part)
        except RowRefusedError as error:
            if part is work:
                _log.warning("Postgres refused a batch; looking for the row", error=error.error_class)
            parts += reversed(part.halves(error))
        else:
            note(part, saved)


class CouponStore:
    """The tables of one consumer group and topic.

    Every method raises `DependencyUnavailable` when the database, or a table of it, cannot do its work now: the answer
    is to wait, whatever the cause, since nothing a record holds can be to blame.

    Args:
        reach: Called with the name of each point that a crash test may want: `after-insert`, `after-commit`.
    """

    def __init__(
        self, pool: PostgresPool, *, group: str, topic: str, reach: Callable[[str], None] = lambda _: None
    ) -> None:
        self._pool = pool
        self._place = (group, topic)
        self._reach = reach

    async def load_offsets(self, topic_id: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the next offset of each partition that has one."""
        with _waiting_helps():
            rows = await self._pool.fetch(_LOAD, *self._place, topic_id, list(partitions))
        return {row["partition"]: row["next_offset"] for row in rows}

    async def begin_at(self, topic_id: str, offsets: Mapping[int, int]) -> None:
        """Store where partitions begin; one that has an offset by now keeps it."""
        with _waiting_helps():
            await self._pool.execute(_BEGIN_AT, *self._place, topic_id, list(offsets), list(offsets.values()))

    async def knows_other_topic(self, topic_id: str) -> bool:
        """Say whether a topic of this name was read before under another id: then this one was made anew."""
        with _waiting_helps():
            row = await self._pool.fetch_row(_KNOWS_OTHER, *self._place, topic_id)
        return row is not None and row[0]

    async def move_offsets(self, topic_id: str, offsets: Mapping[int, int]) -> None:
        """Store other offsets, for an operator: members that read the partitions notice and follow."""
        with _waiting_helps():
            await self._pool.execute(_MOVE, *self._place, topic_id, list(offsets), list(offsets.values()))

    async def save(self, work: Work) -> Saved:
        """Store all of the work in one transaction, or nothing of it.

        Raises:
            RowRefusedError: Postgres will never take one of the rows; `save_by_halves` finds it.
            OwnershipLostError: Some partitions do not stand where this work begins: another member has been there.
            DependencyUnavailable: The database cannot do it now. If the connection broke in the commit, it may be done:
                the next try then finds its partitions moved on.
        """
        with _waiting_helps():
            saved = await self._pool.transaction(self._save, work)
        self._reach("after-commit")
        return saved

    async def _save(self, connection: Connection, work: Work) -> Saved:
        await self._advance(connection, work.progress)
        try:
            stored = await write(connection, work.rows)
        except REFUSALS as error:
            raise RowRefusedError(type(error).__name__, _reason(error)) from error
        self._reach("after-insert")
        if work.poison:
            await self._bury(connection, work.progress, work.poison)
        return Saved(stored, len(work.rows) - stored, len(work.poison))

    async def _advance(self, connection: Connection, progress: Sequence[Progress]) -> None:
        rows = await connection.fetch(
            _ADVANCE,
            *self._place,
            [each.topic_id for each in progress],
            [each.partition for each in progress],
            [each.expected for each in progress],
            [each.next_offset for each in progress],
        )
        if len(rows) != len(progress):
            raise OwnershipLostError({each.partition for each in progress} - {row["partition"] for row in rows})

    async def _bury(self, connection: Connection, progress: Sequence[Progress], poison: Sequence[Poison]) -> None:
        topic_ids = {each.partition: each.topic_id for each in progress}
        records = [each.record for each in poison]
        headers = [headers_of(record) for record in records]
        partitions = [record.partition() for record in records]
        await connection.execute(
            _BURY,
            *self._place,
            [new_id() for _ in poison],
            [topic_ids[partition] for partition in partitions if partition is not None],
            partitions,
            [record.offset() for record in records],
            [record.key() for record in records],
            [record.value() for record in records],
            [_headers_as_json(found or ()) for found in headers],
            [each.error_class for each in poison],
            [
                each.error_detail + (_HEADERS_LEFT_OUT if found is None else "")
                for each, found in zip(poison, headers, strict=True)
            ],
        )


@contextmanager
def _waiting_helps() -> Iterator[None]:
    """Make an error of the database's own, such as a missing table, one that is waited out."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise DependencyUnavailable("postgres", f"{type(error).__name__} ({error.sqlstate})") from error


async def write(connection: Connection, rows: Sequence[EventRow]) -> int:
    """Write the newest row of each coupon, in a transaction of the caller's; return how many rows changed.

    Raises:
        REFUSALS: Postgres refuses one of them; the transaction is lost.
    """
    if not rows:
        return 0
    tag: str = await connection.execute(_WRITE, *map("\n".join, zip(*newest(rows), strict=True)))
    return int(tag.rpartition(" ")[2])


async def write_halving(connection: Connection, rows: Sequence[EventRow]) -> tuple[int, list[tuple[int, str, str]]]:
    """Write what can be written, and find each refused row by halving, under savepoints.

    Returns:
        How many rows changed, and of each refused one its index, the class of the error and a detail.
    """
    changed = 0
    refused: list[tuple[int, str, str]] = []
    parts = [(0, len(rows))]
    while parts:
        first, end = parts.pop()
        await connection.execute("savepoint part")
        try:
            changed += await write(connection, rows[first:end])
        except REFUSALS as error:
            await connection.execute("rollback to savepoint part")
            middle = (first + end) // 2
            if middle == first:
                refused.append((first, type(error).__name__, _reason(error)))
            else:
                parts += [(middle, end), (first, middle)]
        await connection.execute("release savepoint part")
    return changed, refused


def _reason(error: Exception) -> str:
    """Name what refused a row without repeating the row, whose content is in the payload."""
    if isinstance(error, asyncpg.PostgresError):
        return f"{error.sqlstate} {getattr(error, 'constraint_name', None) or ''}".strip()
    return "a value does not fit its column"


def _headers_as_json(headers: Headers) -> str:
    """Write headers as a list of pairs, since names may repeat; values in base 64, null where there is none."""
    texts = [[name, None if value is None else base64.b64encode(value).decode()] for name, value in headers]
    return orjson.dumps(texts).decode()
