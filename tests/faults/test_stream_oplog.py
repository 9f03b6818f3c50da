"""C5 and C13: an oplog that forgets what a stream has not read, and one that forgets while there is nothing to read."""

from pathlib import Path

import pytest

from tests.drills.lost_token import away_too_long, open_forgetful, read_too_slowly, roll_over, token_of
from tests.support.consent_consumer_process import OBJECTS
from tests.support.consent_judge import finish_consents, wait_carried
from tests.support.consent_world import PATIENT
from tests.support.fault_report import FaultReport
from tests.support.servers import embedded_only

pytestmark = [embedded_only, pytest.mark.thorough, pytest.mark.timeout(500)]


def _tell(_: str) -> None:
    """Say nothing: what happens is judged here, and told by the drill."""


@pytest.mark.fault("C5", "stopped until the oplog has forgotten (286): fail, resync and skip on the same loss")
async def test_each_policy_does_with_a_lost_position_what_it_says(tmp_path: Path, fault_report: FaultReport) -> None:
    """It refuses to go on and keeps the place; a resync makes Salesforce equal; a skip leaves out what it says."""
    fault_report.judge(await away_too_long(tmp_path, _tell))


@pytest.mark.fault("C5", "held up by Salesforce until the oplog has forgotten (136), then fail and resync")
async def test_a_stream_that_read_too_slowly_is_told_as_lost(tmp_path: Path, fault_report: FaultReport) -> None:
    """An open stream that was not read in time ends the process as loudly, and a resync makes Salesforce equal."""
    fault_report.judge(await read_too_slowly(tmp_path, _tell))


@pytest.mark.fault("C13", "both streams idle until the oplog has forgotten where they began, then kill -9")
async def test_an_idle_stream_outlives_the_oplog(tmp_path: Path, fault_report: FaultReport) -> None:
    """Its place moves on without any change, so that whoever comes next goes on from there."""
    async with open_forgetful(tmp_path) as (world, members):
        async with world.consumer(**PATIENT) as consumer:
            await consumer.wait_event("Change stream started", count=2)
            await members.act_times(50)
            await wait_carried(world, members)
            idle = {stream: await token_of(world, stream) for stream in OBJECTS}
            for stream, token in idle.items():
                await roll_over(world, stream=stream, behind=token, tell=_tell)
            await consumer.process.kill()
        assert all([await token_of(world, stream) != idle[stream] for stream in OBJECTS])
        await members.act_times(50)
        async with world.consumer(**PATIENT) as following:
            fault_report.judge(await finish_consents(world, members, following))
