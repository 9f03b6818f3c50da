"""What a stream tells of itself while its instance works, and while it waits for the lease again."""

import asyncio
from pathlib import Path
from typing import cast

import pytest
from bson import Timestamp
from prometheus_client import CollectorRegistry

from patterns import Context, background, bubble
from runtime.errors import DependencyUnavailable
from services.consent_consumer import stream as stream_module
from services.consent_consumer.app import run_streams
from services.consent_consumer.change_stream import CONSENT_MASTER
from services.consent_consumer.errors import LeaseLostError
from services.consent_consumer.lease import Lease
from services.consent_consumer.metrics import ConsentMetrics
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.settings import ConsentConsumerSettings
from services.consent_consumer.store import MongoConsentStore, Position
from services.consent_consumer.stream import ConsentStream, Places
from tests.support.fake_consent_store import FakeConsentStore
from tests.unit.services.consent_consumer.salesforce_fake import fake_settings


class Store(FakeConsentStore):
    """A store that can be away."""

    is_away = False

    async def save_position(self, stream: str, position: Position, fence: int) -> None:
        """Fail while it is away."""
        if self.is_away:
            raise DependencyUnavailable("mongo", "no primary")
        await super().save_position(stream, position, fence)


def _stream(directory: Path, store: Store) -> ConsentStream:
    settings = ConsentConsumerSettings.model_construct(
        salesforce=fake_settings(directory), start="now", in_flight_max=10, batch_events=10
    )
    places = Places(
        database=None,  # type: ignore[arg-type]
        store=cast("MongoConsentStore", store),
        scan=None,  # type: ignore[arg-type]
        letters=None,  # type: ignore[arg-type]
        salesforce=None,  # type: ignore[arg-type]
        metrics=ConsentMetrics(CollectorRegistry()),
    )
    return ConsentStream(CONSENT_MASTER, places, settings)


def test_a_stream_without_a_lease_waits_for_nobody_and_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An instance whose lease ran out while no position could be saved is ready again, and its gauges are 0."""

    async def read(ctx: Context, reader: object, _: object) -> None:
        ledger = cast("StreamLedger", vars(reader)["_ledger"])
        settled, _ = [
            await ledger.register(Position(Timestamp(time, 1), {})) for time in (2_000_000_000, 2_000_000_001)
        ]
        ledger.settle(settled)
        await ctx.run(asyncio.sleep(3_600))

    monkeypatch.setattr(stream_module, "iterate_change_stream", read)

    async def run() -> None:
        store = Store()
        stream = _stream(tmp_path, store)
        await stream.check()
        lease = Lease(1, asyncio.get_running_loop().time() + 3_600)
        running = asyncio.create_task(run_streams(background(), lease, [stream]))
        await asyncio.sleep(0.5)
        store.is_away = True
        await asyncio.sleep(10)
        with pytest.raises(DependencyUnavailable, match="no primary"):
            await stream.check()
        assert (stream.statistics().held, stream.statistics().unsettled) == (1, 1)
        lease.lose(LeaseLostError("run out"))
        with pytest.raises(LeaseLostError, match="run out"):
            await running

        await stream.check()
        assert (stream.statistics().held, stream.statistics().oldest_seconds) == (0, 0)

    bubble(run)
