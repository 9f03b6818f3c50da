"""Store what Postgres takes of a batch, and find the rows that it refuses by halving.

Each half is a transaction of its own, with the guard of its own offsets. So a server that is slow, or a batch of which
it refuses every row, costs tries, but each try keeps what it came to: one transaction around all the halves would have
to fit into one try, and a batch that does not would be tried for ever.
"""

from collections.abc import Callable

from runtime.logs import get_logger
from services.coupon_consumer.errors import RowRefusedError
from services.coupon_consumer.store import Saved, Store, Work

_log = get_logger(__name__)

Note = Callable[[Work, Saved], None]
"""Hears of a part, with its dead letters as its poison, as soon as it is stored."""


async def save_by_halves(store: Store, work: Work, note: Note) -> None:
    """Store work in one transaction; while Postgres refuses a row of it, in halves, and their halves, in order.

    A row refused alone becomes a dead letter. Whatever ends this early, a cancel too: each part that was noted is
    stored whole, nothing behind it is, save perhaps a part whose commit was not answered.

    Raises:
        OwnershipLostError, DependencyUnavailable: As `Store.save`, for some part.
    """
    parts = [work]
    while parts:
        part = parts.pop()
        try:
            saved = await store.save(part)
        except RowRefusedError as error:
            if part is work:
                _log.warning("Postgres refused a batch; looking for the row", error=error.error_class)
            parts += reversed(part.halves(error))
        else:
            note(part, saved)
