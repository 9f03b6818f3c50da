"""The Salesforce sandbox as a process: `python -m sandbox.salesforce --log FILE ...`; `--help` has the rest."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Serve until SIGTERM, stop in order, and return the exit status."""
    inbox = hold_signals()
    # Loaded only now: a signal that comes while modules load is held, not lost.
    from sandbox.salesforce.process import run

    return run(inbox)


if __name__ == "__main__":
    sys.exit(main())
