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
    from runtime.errors import DependencyUnavailable, SettingsError
    from runtime.logs import close_logs, configure_logs
    from runtime.process import EXIT_SETTINGS
    from runtime.settings import load_settings
    from services.consent_consumer.commands import EXIT_FAILED, build_parser, run_command
    from services.consent_consumer.settings import ConsentConsumerSettings

    arguments = build_parser().parse_args()
    try:
        settings = load_settings(ConsentConsumerSettings)
        configure_logs(settings)  # to standard error: standard output is the command's
        try:
            return run_command(settings, arguments)
        finally:
            close_logs()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return EXIT_SETTINGS
    except DependencyUnavailable as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
