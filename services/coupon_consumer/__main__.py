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
    from runtime.command import run_command_line
    from services.coupon_consumer.commands import build_parser, run_command
    from services.coupon_consumer.settings import CouponConsumerSettings

    return run_command_line(CouponConsumerSettings, build_parser(), run_command)


if __name__ == "__main__":
    sys.exit(main())
