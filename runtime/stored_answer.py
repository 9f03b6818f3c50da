"""Give a repeated request the answer of the first: the SQL half of idempotency, for every service with such a table.

The caller's own transaction holds all of it: `claim_key`, the work, `store_answer`, commit. So the answer is there
exactly when the work is, and a crash before the commit leaves neither. The table, one in each database that needs it:

    idempotency_keys (subject, route, key, body_hash, status, response, created_at; primary key (subject, route, key))
"""

from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import Final

from runtime.errors import IdempotencyKeyReusedError, RequestInProgressError
from runtime.postgres import Connection

_LOCK: Final = "select pg_try_advisory_xact_lock($1)"
_FIND: Final = "select body_hash, status, response from idempotency_keys where subject = $1 and route = $2 and key = $3"
_STORE: Final = """
insert into idempotency_keys (subject, route, key, body_hash, status, response) values ($1, $2, $3, $4, $5, $6)
"""
_DELETE_OLD: Final = """
delete from idempotency_keys where (subject, route, key) in (
    select subject, route, key from idempotency_keys where created_at < now() - $1::interval
    order by created_at limit $2
)
"""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """One attempt of one subject at one route, and the hash of what it asked for."""

    subject: str
    route: str
    key: str
    body_hash: bytes

    def lock_number(self) -> int:
        """Fold the key into the 64 bits of an advisory lock; two keys that meet cost one of them a needless 409."""
        digest = blake2b(digest_size=8)
        for part in (self.subject, self.route, self.key):
            encoded = part.encode()
            digest.update(len(encoded).to_bytes(4, "big") + encoded)
        return int.from_bytes(digest.digest(), "big", signed=True)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The status and the very bytes that the first request was answered with.

    Raises:
        ValueError: It is no success: a refusal is decided anew each time, so it is never kept.
    """

    status: int
    body: bytes

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 299:
            raise ValueError("only an answer with a status from 200 to 299 is stored")


async def claim_key(connection: Connection, key: IdempotencyKey) -> StoredAnswer | None:
    """Begin the key's work in the open transaction, or return the answer of whoever finished it before.

    The claim is an advisory lock that ends with the transaction, also when the process or the connection dies. Locking
    and looking are two statements on purpose: each sees what was committed before *it* began, so a key that was
    finished between them is found. That holds under read committed alone.

    Raises:
        RequestInProgressError: Another transaction holds the key now.
        IdempotencyKeyReusedError: The key was used for another body.
    """
    if not await connection.fetchval(_LOCK, key.lock_number()):
        raise RequestInProgressError
    row = await connection.fetchrow(_FIND, key.subject, key.route, key.key)
    if row is None:
        return None
    if row["body_hash"] != key.body_hash:
        raise IdempotencyKeyReusedError
    return StoredAnswer(status=row["status"], body=row["response"])


async def store_answer(connection: Connection, key: IdempotencyKey, answer: StoredAnswer) -> None:
    """Keep the answer of the work, in the transaction that claimed the key."""
    await connection.execute(_STORE, key.subject, key.route, key.key, key.body_hash, answer.status, answer.body)


async def delete_old_keys(connection: Connection, older_than: timedelta, limit: int) -> int:
    """Remove at most `limit` keys of more than that age, by the database's clock, and return how many went."""
    tag = await connection.execute(_DELETE_OLD, older_than, limit)
    return int(tag.removeprefix("DELETE "))
