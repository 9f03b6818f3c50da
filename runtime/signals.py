"""Catch a process's signals from its first moment on, and hand them to its event loop when there is one.

Import this before anything heavy and call ``hold_signals`` first thing: a SIGTERM that comes while modules load is then
kept for the loop, which stops in order. Go's runtime is up within a millisecond; an interpreter with its libraries
takes hundreds, and even this module comes some tens of milliseconds late. To process 1 of a container the kernel
delivers no signal that has no handler yet, and drops it. So the image starts Python with SIGTERM blocked, which keeps
it, and ``hold_signals`` lets it in.
"""

import signal
from collections.abc import Callable
from signal import Signals
from typing import Final

STOP_SIGNALS: Final = (Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP)


class SignalInbox:
    """Keep signals until somebody takes them. Handlers run in the main thread, between any two instructions of it.

    SIGTERM and SIGINT ask for a stop, and so does SIGHUP unless it was ignored from the start, as under ``nohup``:
    there is nothing to reload, since secrets are read anew from their files anyway. SIGQUIT asks for the stacks of all
    tasks and threads and stops nothing (Go's runtime prints them and exits with 2); a blocked loop is shown too, unless
    the main thread hangs inside one call of a C library, where no handler runs. SIGPIPE is ignored: a peer that
    went away is an error of that write alone.
    """

    def __init__(self) -> None:
        self._held: list[Signals] = []
        self._take: Callable[[Signals], None] | None = None

    def open(self) -> None:
        """Put the handlers in place, and let in what the starter kept blocked until now. Main thread only."""
        for number in STOP_SIGNALS:
            if number is not Signals.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        signal.signal(Signals.SIGQUIT, self._handle)
        signal.signal(Signals.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def attach(self, take: Callable[[Signals], None]) -> None:
        """Hand over what was held, in order, and from now on every signal as it comes; ``take`` must be reentrant."""
        self._take = take
        while self._held:
            take(self._held.pop(0))

    def detach(self) -> None:
        """Hold signals again: the loop is about to end."""
        self._take = None

    def close(self) -> None:
        """Let no signal change the exit status any more: the process is about to end.

        They are ignored, which the interpreter's end leaves as it is: where it finds a handler it puts the default
        action back, which would kill it. Blocking would hold for this thread alone.
        """
        for number in (*STOP_SIGNALS, Signals.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, _: object) -> None:
        if self._take is None:
            self._held.append(Signals(number))
        else:
            self._take(Signals(number))


_inbox: Final = SignalInbox()


def hold_signals() -> SignalInbox:
    """Begin to catch this process's signals; again is harmless. Returns the process's one inbox."""
    _inbox.open()
    return _inbox
