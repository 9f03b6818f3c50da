"""How errors of MongoDB are sorted."""

import pytest
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidName,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)
from pymongo.helpers_shared import _RETRYABLE_ERROR_CODES

from runtime.errors import DependencyUnavailable, PoolExhausted, TransactionContended
from runtime.mongo_error import as_unavailable, is_password_refused


def labelled(*labels: str) -> PyMongoError:
    """Return an error that bears labels and no known code."""
    return OperationFailure("labelled", 1, {"errorLabels": list(labels)})


@pytest.mark.parametrize(
    "error",
    [
        AutoReconnect("gone"),
        NetworkTimeout("silent"),
        NotPrimaryError("stepped down"),
        ServerSelectionTimeoutError("nobody"),
        ExecutionTimeout("too long", 50),
        WTimeoutError("no majority", 64),
        WriteConcernError("shutting down", 91),
        OperationFailure("disk full", 14031),
        OperationFailure("Authentication failed.", 18),
        OperationFailure("interrupted", 11602),
        OperationFailure("No keys found for HMAC", 211),
        labelled("RetryableWriteError"),
        labelled("TransientTransactionError"),
        labelled("ResumableChangeStreamError"),
        OSError("no such host"),
        TimeoutError(),
    ],
    ids=repr,
)
def test_a_state_of_the_server_is_unavailability(error: BaseException) -> None:
    """Whatever passes by itself, or by an operator's hand, is told as that and nothing more special."""
    assert type(as_unavailable(error)) is DependencyUnavailable


@pytest.mark.parametrize("code", sorted(_RETRYABLE_ERROR_CODES))
def test_what_the_driver_itself_tries_again_is_unavailability(code: int) -> None:
    """Its one more try may meet the same state, which is no other one for that."""
    assert type(as_unavailable(OperationFailure("still so", code))) is DependencyUnavailable


@pytest.mark.parametrize(
    "error",
    [
        DuplicateKeyError("exists", 11000),
        OperationFailure("not authorized", 13),
        OperationFailure("no such command", 59),
        InvalidName("$"),
        ValueError("ours"),
        KeyError("ours"),
    ],
    ids=repr,
)
def test_any_other_error_is_none_of_the_servers_states(error: BaseException) -> None:
    """A violated index, a forbidden or a wrong command, or a mistake of ours is not called an outage."""
    assert as_unavailable(error) is None


def test_a_lost_race_and_a_full_pool_are_told_apart() -> None:
    """Each is a kind of unavailability with a class of its own."""
    assert type(as_unavailable(OperationFailure("conflict", 112))) is TransactionContended
    assert type(as_unavailable(WaitQueueTimeoutError("all lent"))) is PoolExhausted


def test_a_detail_is_short() -> None:
    """A driver that finds no server tells of every node; the log does not need all of it."""
    unavailable = as_unavailable(ServerSelectionTimeoutError("x" * 10_000))
    assert unavailable is not None
    assert len(unavailable.detail) == 300


def test_a_refused_password_is_known() -> None:
    """It is what makes the password's file be read anew; another refusal is not."""
    assert is_password_refused(OperationFailure("Authentication failed.", 18))
    assert not is_password_refused(OperationFailure("not authorized", 13))
    assert not is_password_refused(OSError())
