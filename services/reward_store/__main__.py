"""Run reward_store: `python -m services.reward_store`."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Run the service to its end and return the process's exit status."""
    hold_signals()
    # Loaded only now: a signal that comes while modules load is held, not fatal.
    from runtime.process import run
    from services.reward_store.app import Application
    from services.reward_store.settings import RewardStoreSettings

    return run(RewardStoreSettings, Application)


if __name__ == "__main__":
    sys.exit(main())
