"""Sort what Postgres, its driver and the network can say by what is to be done about it."""

from enum import Enum, auto
from typing import Final

import asyncpg

from runtime.errors import DependencyUnavailable, TransactionContended

DEPENDENCY: Final = "postgres"

_EXPIRING: Final = frozenset({"25006", "57P01", "57P02", "57P03", "57P05"})
_PASSING: Final = frozenset({"55P03", "57014", "25P03", "25P04"})
_CONTENDED: Final = frozenset({"40001", "40P01"})
_STALE_PLAN: Final = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)


class Verdict(Enum):
    """Say what to do after an error."""

    RETRY = auto()
    """The transaction lost to another, or its plan to a change of the schema: roll back and run all of it again."""
    EXPIRE = auto()
    """The server is going, gone or read-only: every open connection is suspect."""
    UNAVAILABLE = auto()
    """The server cannot do this now (a full disk, too many connections, a wait that was too long)."""
    OTHER = auto()
    """Not a state of the server: a violated constraint, a mistake in the query, or no database error at all."""


def judge(error: BaseException) -> Verdict:
    """Return what an error that came out of a query or a connection attempt asks for.

    ``OSError`` and ``TimeoutError`` belong here: asyncpg raises them plain while the server is down or frozen. So does
    its ``InternalClientError``: the server ended this connection between two statements, with a word on why that nobody
    awaited, and the next statement came before the driver saw the end.
    """
    if isinstance(error, asyncpg.PostgresError):
        return _judge_state(error.sqlstate or "", error)
    if isinstance(error, TimeoutError | asyncpg.InternalClientError):
        return Verdict.UNAVAILABLE
    if isinstance(error, OSError | asyncpg.TargetServerAttributeNotMatched):
        return Verdict.EXPIRE
    return Verdict.OTHER


def _judge_state(state: str, error: asyncpg.PostgresError) -> Verdict:
    if state in _CONTENDED or isinstance(error, _STALE_PLAN):
        return Verdict.RETRY
    if state in _EXPIRING or state.startswith("08"):
        return Verdict.EXPIRE
    if state in _PASSING or state.startswith(("53", "58")):
        return Verdict.UNAVAILABLE
    return Verdict.OTHER


def as_unavailable(error: BaseException) -> DependencyUnavailable:
    """Return the error a caller of the pool gets for one that is a state of the server."""
    detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if judge(error) is Verdict.RETRY:
        return TransactionContended(DEPENDENCY, detail, retry_after_seconds=1.0)
    return DependencyUnavailable(DEPENDENCY, detail)
