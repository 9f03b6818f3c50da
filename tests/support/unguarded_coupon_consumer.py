"""coupon_consumer without one of its guards: `python -m tests.support.unguarded_coupon_consumer --without offset`."""

import sys
from typing import Final

from runtime.partition_ledger import PartitionLedger
from services.coupon_consumer import store
from services.coupon_consumer.__main__ import main
from tests.support.unguarded import Removal, change, run_without


def advance_from_anywhere() -> None:
    """Store a batch wherever its partition stands by now."""
    change(store, "_ADVANCE", "and stored.next_offset = given.expected and given.next_offset > given.expected", "")


def begin_whatever_the_generation() -> None:
    """Store a batch that was read under an older assignment or position of its partition."""
    begin = PartitionLedger.begin

    def begin_any(self: PartitionLedger, partition: int, generation: int) -> bool:
        current = self.generation(partition)
        return begin(self, partition, generation if current is None else current)

    PartitionLedger.begin = begin_any  # type: ignore[method-assign] # the guard, removed


GUARDS: Final[dict[str, Removal]] = {
    "offset": advance_from_anywhere,
    "generation": begin_whatever_the_generation,
}


def _main() -> int:
    del sys.argv[1:]  # the service itself takes an argument for one of its commands
    return main()


if __name__ == "__main__":
    sys.exit(run_without(GUARDS, _main))
