"""C9: positions that cannot be saved, since somebody holds their documents in a transaction that goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from pymongo.errors import OperationFailure

from sandbox.servers import MongoServer
from services.consent_consumer.store import POSITIONS
from tests.support.consent_consumer_process import OBJECTS, ConsentWorld
from tests.support.consent_judge import finish_consents, replays, wait_carried
from tests.support.consent_world import PATIENT, SHORT_LEASE, open_consents
from tests.support.eventually import eventually
from tests.support.fault_report import FaultReport
from tests.support.service_process import ServiceProcess

BOUND: Final = 100
BOUNDED: Final = {"IN_FLIGHT_MAX": str(BOUND), "BATCH_EVENTS": "50"}
WRITES: Final = 1_200
_WRITE_CONFLICT: Final = 112


@asynccontextmanager
async def locked_positions(mongo: MongoServer, world: ConsentWorld) -> AsyncIterator[None]:
    """Hold both positions in a transaction, so that every save waits for it in vain."""
    async with mongo.connect() as client, client.start_session() as session:
        positions = client[world.database.name][POSITIONS]

        async def is_held() -> bool:
            await session.start_transaction()
            try:
                await positions.update_many({}, {"$set": {"held": True}}, session=session)
            except OperationFailure as error:  # a save came first
                await session.abort_transaction()
                if error.code != _WRITE_CONFLICT:
                    raise
                return False
            return True

        await eventually(is_held, seconds=20)
        yield
        await session.abort_transaction()


async def _read(consumer: ServiceProcess) -> dict[str, float]:
    metrics = await consumer.metrics()
    return {stream: metrics[f'lp_{stream}_registered_total{{name="default"}}'] for stream in OBJECTS}


async def _read_until_it_pauses(consumer: ServiceProcess) -> dict[str, float]:
    """Return how much of each stream was read when that has not risen for two seconds."""
    seen: list[dict[str, float]] = [{}]

    async def has_paused() -> bool:
        seen.append(await _read(consumer))
        return seen[-1] == seen[-2]

    await eventually(has_paused, seconds=90, pause_seconds=2)
    return seen[-1]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "is_killed",
    [
        pytest.param(False, marks=pytest.mark.fault("C9", "no position can be saved under changes, then they can")),
        pytest.param(True, marks=pytest.mark.fault("C9", "no position can be saved under changes, then kill -9")),
    ],
)
async def test_without_saves_no_more_is_carried_than_may_be_told_again(
    mongo: MongoServer, tmp_path: Path, fault_report: FaultReport, is_killed: bool
) -> None:
    """It is not ready, carries up to its bound, and pauses with the old place kept; so little is told again."""
    async with open_consents([mongo], tmp_path) as (world, members):
        positions = world.database.collection(POSITIONS)
        async with world.consumer(**PATIENT, **SHORT_LEASE, **BOUNDED) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            await members.act_times(100)
            await wait_carried(world, members)
            async with locked_positions(mongo, world):
                kept, before = await positions.find().to_list(None), await _read(consumer)
                await members.act_times(WRITES)
                await consumer.wait_readiness(503)
                read = await _read_until_it_pauses(consumer)
                # The bound counts from the place that was saved last, which may lie some changes behind `before`.
                assert all(read[stream] >= BOUND for stream in OBJECTS), (before, read)
                assert all(0 < read[stream] - before[stream] <= 2 * BOUND for stream in OBJECTS), (before, read)
                if is_killed:
                    await consumer.process.kill()
                assert await positions.find().to_list(None) == kept
            if not is_killed:
                fault_report.judge(await finish_consents(world, members, consumer))
        if is_killed:
            async with world.consumer(**PATIENT, **SHORT_LEASE) as following:
                fault_report.judge(await finish_consents(world, members, following))
        told_again = replays(world)
        assert told_again <= 2 * 2 * BOUND
        fault_report.measure(told_again=str(told_again))
