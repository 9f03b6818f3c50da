"""coupon_api without one of its guards: `python -m tests.support.unguarded_coupon_api --without redeem-once`."""

import sys
from typing import Final

from services.coupon_api import store
from services.coupon_api.__main__ import main
from tests.support.unguarded import Removal, change, run_without


def redeem_whatever_the_status() -> None:
    """Spend a coupon as often as somebody asks."""
    change(store, "_REDEEM", "and status = 'issued'", "")


GUARDS: Final[dict[str, Removal]] = {"redeem-once": redeem_whatever_the_status}

if __name__ == "__main__":
    sys.exit(run_without(GUARDS, main))
