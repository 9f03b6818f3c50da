"""Run consent_consumer: `python -m services.consent_consumer`."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Run the service to its end and return the process's exit status."""
    hold_signals()
    # Loaded only now: a signal that comes while modules load is held, not fatal.
    from runtime.process import run
    from services.consent_consumer.app import Application
    from services.consent_consumer.settings import ConsentConsumerSettings

    return run(ConsentConsumerSettings, Application)


if __name__ == "__main__":
    sys.exit(main())
