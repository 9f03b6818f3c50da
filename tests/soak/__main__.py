"""Run the whole platform under traffic for long, and disturb it all the time.

    python -m tests.soak --stops 1000
    python -m tests.soak --minutes 60 [--seed N]

With `--stops`, instances of all services are replaced, one rolling restart after the other, until so many have been
stopped in order: no request may fail. With `--minutes`, something is hurt every 20 s or so, chosen by the seed:
requests may fail then, and nothing that was promised may be lost, doubled or invented. Both end with the audit. The
last line is `soak ok: ...` with status 0, or `soak FAILED: ...` with status 1; then logs and books are kept.
"""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sandbox.servers import ServerError
from tests.soak.soak import Say, Soak
from tests.support.judgement import Rule

_INTERRUPTED: Final = 130


def _clock() -> Say:
    """Return what prints a line with the seconds since now."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:8.1f} s  {text}", flush=True)  # noqa: T201 - what this command is for

    return say


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The whole platform under traffic, disturbed all the time.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--stops", type=int, help="how many orderly stops, one rolling restart each")
    what.add_argument("--minutes", type=float, help="for how long something is hurt every 20 s or so")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbits(32), help="of traffic and faults (default: random)"
    )
    parser.add_argument("--rate", type=float, default=30.0, help="requests a second on average (default: 30)")
    arguments = parser.parse_args(given)
    if arguments.rate <= 0 or (arguments.stops or arguments.minutes or 0) <= 0:
        parser.error("--stops, --minutes and --rate must be greater than 0")
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Run the soak and return its exit status."""
    arguments = _arguments(given)
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    say = _clock()
    say(f"seed {arguments.seed}, {arguments.rate:g} requests a second on average, logs in {directory}")
    soak = Soak(directory, arguments.seed, arguments.rate, say)
    kept = f"seed {arguments.seed}, logs and books in {directory}"
    try:
        run = soak.stops(arguments.stops) if arguments.stops else soak.faults(60 * arguments.minutes)
        judgement, done = asyncio.run(run)
    except KeyboardInterrupt:
        say(f"soak FAILED: interrupted; {kept}")
        return _INTERRUPTED
    except (ServerError, TimeoutError, OSError) as error:
        say(f"soak FAILED: {type(error).__name__}: {error}; {kept}")
        return 1
    rules = ", ".join(f"{rule} {mark}" for rule, mark in zip(Rule, judgement.marks(), strict=True))
    if not judgement.is_ok:
        say(str(judgement))
        say(f"soak FAILED: {done}; {rules}; {kept}")
        return 1
    shutil.rmtree(directory)
    say(f"soak ok: {done}; {rules}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
