"""Run coupon_consumer: `python -m services.coupon_consumer`, or one of its commands (`--help` lists them)."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Run the service, or a command, to its end and return the process's exit status."""
    if len(sys.argv) > 1:
        return _command()
    hold_signals()
    # Loaded only now: a signal that comes while modules load is held, not fatal.
    from runtime.process import run
    from services.coupon_consumer.app import Application
    from services.coupon_consumer.settings import CouponConsumerSettings

    return run(CouponConsumerSettings, Application)


def _command() -> int:
    from runtime.errors import DependencyUnavailable, SettingsError
    from runtime.logs import close_logs, configure_logs
    from runtime.process import EXIT_SETTINGS
    from runtime.settings import load_settings
    from services.coupon_consumer.commands import EXIT_FAILED, build_parser, run_command
    from services.coupon_consumer.settings import CouponConsumerSettings

    arguments = build_parser().parse_args()
    try:
        settings = load_settings(CouponConsumerSettings)
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
