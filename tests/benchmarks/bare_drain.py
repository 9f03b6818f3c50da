"""The reference: the driver alone reads a backlog to its end, and does nothing with it.

Run as a program with a consumer's settings in its environment: `python -m tests.benchmarks.bare_drain MASTERS DETAILS`
reads so many changes of each collection from the positions that are saved, both at the same time, and prints how many
seconds it took. The streams are those of the consumer, opened by its own functions: the same fields, and answers of the
same size.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

from runtime.mongo import ChangeStream, MongoDatabase
from services.consent_consumer.change_stream import (
    CONSENT_DETAIL,
    CONSENT_MASTER,
    consent_detail_stream,
    consent_master_stream,
)
from services.consent_consumer.settings import ConsentConsumerSettings
from services.consent_consumer.store import MongoConsentStore, Position

Open = Callable[[MongoDatabase, Position, int], Awaitable[ChangeStream]]


async def drain(database: MongoDatabase, name: str, open_stream: Open, count: int, events_max: int) -> None:
    """Read so many changes of one collection."""
    saved = await MongoConsentStore(database).find_position(name)
    if saved is None or saved.position is None:
        raise ValueError(f"no position of {name} is saved")
    source = await open_stream(database, saved.position, events_max)
    seen = 0
    while seen < count:
        if await source.try_next() is not None:
            seen += 1
    await source.close()


async def drain_both(masters: int, details: int) -> float:
    """Read both collections' changes side by side, and return the seconds."""
    settings = ConsentConsumerSettings()
    database = MongoDatabase(settings.mongo)
    await database.check()
    began = time.perf_counter()
    await asyncio.gather(
        drain(database, CONSENT_MASTER, consent_master_stream, masters, settings.answer_events),
        drain(database, CONSENT_DETAIL, consent_detail_stream, details, settings.answer_events),
    )
    took = time.perf_counter() - began
    await database.aclose()
    return took


if __name__ == "__main__":
    import uvloop

    print(uvloop.run(drain_both(int(sys.argv[1]), int(sys.argv[2]))))
