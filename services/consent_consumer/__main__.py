"""Run consent_consumer: `python -m services.consent_consumer`, or one of its commands (`--help` lists them)."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Run the service, or a command, to its end and return the process's exit status."""
    if len(sys.argv) > 1:
        return _command()
    hold_signals()
    # Loaded only now: a signal that comes while modules load is held, not fatal.
    from runtime.process import run
    from services.consent_consumer.app import Application
    from services.consent_consumer.settings import ConsentConsumerSettings

    return run(ConsentConsumerSettings, Application)


def _command() -> int:
    from runtime.command import run_command_line
    from services.consent_consumer.commands import build_parser, run_command
    from services.consent_consumer.settings import ConsentConsumerSettings

    return run_command_line(ConsentConsumerSettings, build_parser(), run_command)


if __name__ == "__main__":
    sys.exit(main())
