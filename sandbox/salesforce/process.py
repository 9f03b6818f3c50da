"""The sandbox from its command line to its exit status.

Status 0 after SIGTERM, SIGINT or SIGHUP, once the calls under way are answered; 1 where it cannot start, where calls
took longer than 5 s to end, or at a second signal, which ends it at once; 2 for a command line that makes no sense.
"""

from __future__ import annotations

import asyncio
import sys
from signal import Signals

import uvloop

from patterns import Shutdown
from runtime.signals import STOP_SIGNALS, SignalInbox
from sandbox.salesforce.errors import AppliedLogError
from sandbox.salesforce.server import STOP_SECONDS, open_salesforce
from sandbox.salesforce.settings import SalesforceSettings, read_arguments

_MARGIN_SECONDS = 2.0


def run(inbox: SignalInbox) -> int:
    """Serve until told to stop; the signals that came so far count. Returns the exit status."""
    try:
        settings = read_arguments()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, inbox))
    except (AppliedLogError, OSError) as error:
        sys.stderr.write(f"the sandbox cannot serve: {error}\n")
        return 1
    finally:
        inbox.close()


async def _serve(settings: SalesforceSettings, inbox: SignalInbox) -> int:
    loop = asyncio.get_running_loop()
    shutdown = Shutdown(STOP_SECONDS + _MARGIN_SECONDS)

    def take(number: Signals) -> None:  # in a signal handler: between any two instructions of this thread
        if number in STOP_SIGNALS:
            loop.call_soon_threadsafe(shutdown.notify, number)

    inbox.attach(take)
    try:
        async with open_salesforce(settings) as salesforce:
            print(f"the Salesforce sandbox listens on {salesforce.url}; its log is {settings.log}", flush=True)
            await shutdown.signals.receive()
            result = await shutdown.run(("calls under way", salesforce.drain))
    finally:
        inbox.detach()
    return 0 if result.is_clean else 1
