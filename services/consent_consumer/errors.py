"""What can end a call of Salesforce or the work of a stream, besides the errors of MongoDB."""

from datetime import datetime

from runtime.errors import DependencyUnavailable


class SalesforceUnavailable(DependencyUnavailable):
    """Say that a call came to nothing, or to something nobody can tell; the same call may be made again, and later.

    It says nothing of the records that were sent, so none of them is ever a dead letter for it. Some may be stored.
    """


class SalesforceDenied(SalesforceUnavailable):
    """Say that Salesforce will not serve this client until somebody has mended something: stop pushing, and be red.

    The credentials are refused or cannot be read, an object or a right is missing, or the storage is full. Waiting
    alone mends nothing, but whatever was mended is noticed by the next try, so the process need not end.
    """


class PositionLostError(RuntimeError):
    """Say that a stream cannot go on from where it stood: an operator has to choose between a resync and a skip.

    Attributes:
        stream: which one.
        code: MongoDB's.
        is_history_lost: whether the changes are gone from the oplog; else the position itself cannot be used.
    """

    def __init__(self, stream: str, code: int | None, is_history_lost: bool) -> None:
        self.stream = stream
        self.code = code
        self.is_history_lost = is_history_lost
        what = "the changes behind its position are gone" if is_history_lost else "its position cannot be used"
        super().__init__(f"{stream}: {what} (code {code}); the position is kept: resync, or skip")


class VersionOverflowError(ValueError):
    """Say that a cluster time cannot be told as a version; going on would let an older change overwrite a newer one."""


class LeaseLostError(RuntimeError):
    """Say that the lease is another's now, or over: nothing more may be sent or saved under it."""


class LeaseHeldError(RuntimeError):
    """Say that an instance holds the lease, so nobody else may decide where a stream stands.

    Attributes:
        holder: the instance.
        expires_at: when its lease ends unless it is renewed.
    """

    def __init__(self, holder: str, expires_at: datetime) -> None:
        self.holder = holder
        self.expires_at = expires_at
        super().__init__(f"{holder} holds the lease until {expires_at.isoformat()} at least: stop it first")


class SnapshotTooOldError(RuntimeError):
    """Say that the database no longer has a collection as it was when its scan began: begin anew."""
