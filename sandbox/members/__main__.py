"""Members of a platform that runs: `python -m sandbox.members`."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Send members' requests until SIGTERM, audit, and return the exit status."""
    inbox = hold_signals()
    # Loaded only now: a signal that comes while modules load is held, not lost.
    from sandbox.members.app import run

    return run(inbox)


if __name__ == "__main__":
    sys.exit(main())
