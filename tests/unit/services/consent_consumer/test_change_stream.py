"""The reader of changes on a driver that is not there: what becomes of the end of a context."""

import asyncio
from typing import cast

import pytest
from bson import Timestamp

from patterns import Channel, background, bubble, wait_idle
from runtime.mongo import MongoDatabase
from services.consent_consumer.change_stream import CONSENT_MASTER, Change, ChangeReader, iterate_change_stream
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import Position


def test_context_ends_a_stream_whose_driver_knows_nothing_of_the_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was there in the same tick, so it is returned in place of the cancel; no other question is asked."""
    asked: list[float] = []

    async def quiet_second(_: ChangeReader) -> None:
        asked.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            return  # as `asyncio.wait_for` does before Python 3.12

    async def scene() -> None:
        begin = Position(Timestamp(1, 1), None)
        reader = ChangeReader(
            cast("MongoDatabase", None),
            CONSENT_MASTER,
            StreamLedger(1, begin),
            begin,
            events_max=1,
            retry=RetrySettings(),
        )
        changes: Channel[Change] = Channel(1)
        with background().with_cancel() as ctx:
            reading = asyncio.create_task(iterate_change_stream(ctx, reader, changes))
            await wait_idle()
            ctx.cancel()
            async with asyncio.timeout(60):
                await reading
        assert len(asked) == 1

    monkeypatch.setattr(ChangeReader, "_try_next", quiet_second)
    bubble(scene)
