"""Load files of coupons into PostgreSQL: `python -m etl load FILE...`; `--help` says the rest."""

import sys

from etl.memory import share_one_arena
from runtime.signals import hold_signals


def main() -> int:
    """Run a command to its end and return the process's exit status."""
    hold_signals()
    share_one_arena()
    # Loaded only now: a signal that comes while modules load is held, not fatal.
    from etl.commands import run_command_line

    return run_command_line(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
