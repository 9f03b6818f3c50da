"""Run a part of a service beside its `select`, and tell the `select` when it fails."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from patterns import Channel, Context, WouldBlock
from runtime.logs import get_logger

_log = get_logger(__name__)

Work = Callable[[Context], Awaitable[None]]
"""A part that works until its context ends."""


async def run_reporting(server_errors: Channel[BaseException], work: Work, ctx: Context) -> None:
    """Run a part; what it cannot live with goes to `server_errors` and ends the process, as a failed server does.

    Each failure leaves a line, also one that comes second or during the stop. A cancel is no failure and is raised.
    Go's twin is a goroutine whose last line sends its error to the channel; a panic in it would end the program past
    all deferred calls, and here it is an error like any other.
    """
    try:
        await work(ctx)
    except Exception as error:  # noqa: BLE001 - handed to whoever waits in server_errors
        _log.error("Background work failed", work=getattr(work, "__qualname__", repr(work)), error=repr(error))
        report(server_errors, error)


def report(server_errors: Channel[BaseException], error: BaseException) -> None:
    """Send an error to the `select`, unless one is there already: the first is the one that ends the process."""
    with suppress(WouldBlock):
        server_errors.send_nowait(error)


def raise_reported(server_errors: Channel[BaseException]) -> None:
    """Raise what was reported since the `select`, if anything; after the stop, which then was no clean end.

    In Go's original nobody reads the channel any more by then, and a failure during the stop ends with status 0.
    """
    try:
        error = server_errors.receive_nowait()
    except WouldBlock:
        return
    raise error
