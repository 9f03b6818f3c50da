"""Every error and flow signal of the package.

Go panics where it is misused and returns an error where the world is at fault. Here both are exceptions: misuse is a
``RuntimeError`` (the process lives on), the end of a context a ``ContextError``, and what is no fault at all, the end
of a channel or an operation that would have to wait, a plain signal whose name says so.
"""

from __future__ import annotations

from signal import Signals


class ChannelClosedError(RuntimeError):
    """A send on, or a second close of, a closed channel (Go: a panic)."""


class EndOfChannel(Exception):  # noqa: N818 - a signal, not a fault: Go's `value, ok := <-channel` with ok false
    """A receive on a channel that is closed and drained (Go: the zero value and ``ok == false``)."""


class WouldBlock(Exception):  # noqa: N818 - a signal, not a fault: Go's `default` branch
    """A ``*_nowait`` operation that could only have succeeded by waiting."""


class ContextError(Exception):
    """The end of a context; ``__cause__`` is the context's cause when one was given."""


class ContextCancelled(ContextError):  # noqa: N818 - Go's name
    """The context was cancelled (Go: ``context.Canceled``)."""


class DeadlineExceeded(ContextError, TimeoutError):  # noqa: N818 - Go's name
    """The context's deadline passed (Go: ``context.DeadlineExceeded``)."""


class NotLockedError(RuntimeError):
    """A lock was released by someone who does not hold it."""


class DeadlockError(RuntimeError):
    """Every task waits for another and no timer is left that could wake one."""


class LeakError(RuntimeError):
    """Tasks are left over where nothing should run any more."""


class WaitGroupMisuseError(RuntimeError):
    """A wait group's count went below zero, or an ``add`` came when the wait it was meant for could not count it."""


class SignalReceived(Exception):  # noqa: N818 - a cause, not a fault: Go's NotifyContext names the signal likewise
    """The cause of a context that ended because the process was told to stop."""

    def __init__(self, signal: Signals) -> None:
        super().__init__(f"received {signal.name}")
        self.signal = signal
