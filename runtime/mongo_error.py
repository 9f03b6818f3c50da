"""Sort what MongoDB, its driver and the network can say by what is to be done about it."""

from typing import Final

from pymongo.errors import ConnectionFailure, OperationFailure, PyMongoError, WaitQueueTimeoutError

from runtime.errors import DependencyUnavailable, PoolExhausted, TransactionContended

DEPENDENCY: Final = "mongo"

_AUTHENTICATION_FAILED: Final = 18
_WRITE_CONFLICT: Final = 112
_DETAIL_CHARACTERS: Final = 300  # a driver that finds no server tells the whole topology

# The server is going, gone, not the primary, cut off from its majority, overloaded, out of disk or of time; a node that
# has just started may not know yet what a majority has (134), or the keys by which the set signs its times (211).
_PASSING: Final = frozenset(
    {6, 7, 24, 46, 50, 64, 74, 89, 91, 100, 134, 189, 202, 211, 262}
    | {9001, 10058, 10107, 11600, 11602, 13435, 13436, 14031}
)
_PASSING_LABELS: Final = (
    "RetryableWriteError",
    "TransientTransactionError",
    "ResumableChangeStreamError",
    "SystemOverloadedError",
)


def as_unavailable(error: BaseException) -> DependencyUnavailable | None:
    """Return the error a caller gets for one that is a state of the server, and None for any other.

    Any other is a violated index, a mistake in the query, or no error of the database at all. ``OSError`` belongs to
    the states, since a name that does not resolve may come plain; so does a password that is refused, which an operator
    may be changing at this moment.
    """
    if isinstance(error, PyMongoError | OSError):
        detail = f"{type(error).__name__}: {error}"[:_DETAIL_CHARACTERS]
        if isinstance(error, WaitQueueTimeoutError):
            return PoolExhausted(DEPENDENCY, detail)
        if isinstance(error, OperationFailure) and is_contended(error):
            return TransactionContended(DEPENDENCY, detail)
        if _is_passing(error):
            return DependencyUnavailable(DEPENDENCY, detail)
    return None


def is_contended(error: PyMongoError) -> bool:
    """Tell whether a transaction lost to another one: all of it may be run again."""
    return isinstance(error, OperationFailure) and error.code == _WRITE_CONFLICT


def is_password_refused(error: BaseException) -> bool:
    """Tell whether the server refused to let a new connection in."""
    return isinstance(error, OperationFailure) and error.code == _AUTHENTICATION_FAILED


def _is_passing(error: PyMongoError | OSError) -> bool:
    if isinstance(error, OSError | ConnectionFailure):
        return True
    if isinstance(error, OperationFailure) and (error.code in _PASSING or is_password_refused(error)):
        return True
    return error.timeout or any(error.has_error_label(label) for label in _PASSING_LABELS)
