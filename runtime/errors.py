"""What can go wrong around a process, told apart by what a caller can do about it.

No error here knows an HTTP status: ``runtime.problem`` maps classes to statuses. Go spells most of these as sentinel
values compared with ``errors.Is``; a class hierarchy does the same work with ``except``.
"""


class SettingsError(ValueError):
    """Say that settings are missing, mistyped or contradict each other.

    Attributes:
        problems: every problem that was found, each naming its variable and never its value; what cannot be printed of
            a name is escaped.
    """

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(_printable(problem) for problem in problems)
        super().__init__("bad settings:\n" + "\n".join(f"  {problem}" for problem in self.problems))


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class DependencyUnavailable(Exception):  # noqa: N818 - a state of the world that passes, not a fault of ours
    """Say that a server this process needs cannot do its work now; the same call may succeed later.

    Attributes:
        dependency: the server's role, such as ``postgres`` or ``kafka``.
        detail: what was the matter, for the log.
        retry_after_seconds: when a caller may sensibly try again.
    """

    def __init__(self, dependency: str, detail: str, *, retry_after_seconds: float = 1.0) -> None:
        self.dependency = dependency
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{dependency}: {detail}")


class PoolExhausted(DependencyUnavailable):
    """Say that no connection came free in the time allowed: the dependency lives, this process has too much to do."""


class TransactionContended(DependencyUnavailable):
    """Say that a transaction lost to others (serialization, deadlock) as often as it may be tried."""


class TransactionAbortedError(RuntimeError):
    """Say that nothing was committed because an error inside had been swallowed: a mistake in the program."""


class DeliveryUnknown(DependencyUnavailable):
    """Say that a record was handed to the broker's client and no word came back: it may or may not be stored."""


class RecordRefusedError(ValueError):
    """Say that a record can never be stored as it is, such as one above the size limit; it was not stored."""


class IndexConflictError(RuntimeError):
    """Say that an index of ours exists in another form; an operator has to drop one of the two."""


class WorkCutOffError(RuntimeError):
    """Say that a stop cancelled work which took longer than it may wait; the status of the process tells of it too."""


class RequestDeadlineExceeded(TimeoutError):  # noqa: N818 - named after Go's DeadlineExceeded
    """Say that a request's own deadline passed before its work was done; the work was cancelled."""


class IdempotencyKeyReusedError(Exception):
    """Say that an idempotency key came back with a body other than its first one."""


class RequestInProgressError(Exception):
    """Say that a request with the same idempotency key is still running."""
