"""An application for tests of ``runtime.process``: ``python -m tests.support.signal_application MODE``."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Hold signals, say so on standard output, then import all that is heavy and run."""
    hold_signals()
    sys.stdout.write("held\n")
    sys.stdout.flush()
    from runtime.process import run
    from tests.support.signal_modes import ModeApplication, ModeSettings

    return run(ModeSettings, ModeApplication)


if __name__ == "__main__":
    sys.exit(main())
