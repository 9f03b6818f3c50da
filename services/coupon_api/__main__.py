"""Run coupon_api: `python -m services.coupon_api`."""

import sys

from runtime.signals import hold_signals


def main() -> int:
    """Run the service to its end and return the process's exit status."""
    hold_signals()
    # Loaded only now: a signal that comes while modules load is held, not fatal.
    from runtime.process import run
    from services.coupon_api.app import Application
    from services.coupon_api.settings import CouponApiSettings

    return run(CouponApiSettings, Application)


if __name__ == "__main__":
    sys.exit(main())
