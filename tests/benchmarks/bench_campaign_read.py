"""GET /v1/campaigns through the real service, against a bare ASGI application that runs the same query."""

import asyncio
import contextlib
import dataclasses
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from loyalty.campaign import CampaignStatus
from patterns import background
from runtime.auth import sign_token
from runtime.mongo import MongoDatabase, open_mongo
from sandbox.servers import MongoServer, Program, start_process
from sandbox.servers import open_mongo as open_server
from services.campaign_api.store import CAMPAIGNS
from tests.benchmarks.load import compare
from tests.benchmarks.report import Row
from tests.support.campaign_api_process import open_campaign_api
from tests.support.campaign_sample import some_campaign
from tests.support.mongo_settings import open_mongo_database
from tests.support.service_process import ROOT, SECRET

CAMPAIGNS_KEPT = 1_000
RATE_GOAL = ">= 0.6"


async def plant_campaigns(database: MongoDatabase) -> str:
    """Store a thousand campaigns that members may see, and return the id of one."""
    campaigns = [
        some_campaign(CampaignStatus.ACTIVE, starts=timedelta(minutes=-number), ends=timedelta(days=1))
        for number in range(CAMPAIGNS_KEPT)
    ]
    documents = [dataclasses.asdict(campaign) for campaign in campaigns]
    await database.collection(CAMPAIGNS).insert_many([{"_id": each.pop("campaign_id"), **each} for each in documents])
    return campaigns[CAMPAIGNS_KEPT // 2].campaign_id


@contextlib.asynccontextmanager
async def _bare_application(server: MongoServer, database: str, directory: Path) -> AsyncIterator[str]:
    """Run the reference and yield its address."""
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as listener:
        fd = listener.fileno()
        command = [sys.executable, "-m", "tests.benchmarks.bare_campaign_read", str(fd), server.superuser_url, database]
        process = await start_process(
            Program(
                name="bare_campaign_read",
                command=command,
                log=directory / "bare_campaign_read.log",
                directory=ROOT,
                pass_descriptors=(fd,),
            )
        )
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            await process.stop()
            process.release()


async def measure() -> list[Row]:
    """Compare the read of one campaign, and that of a page of fifty."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with (
            open_server() as server,
            open_mongo_database(server) as settings,
            open_mongo(background(), settings) as database,
            open_campaign_api(settings, directory) as service,
            _bare_application(server, settings.database, directory) as bare,
        ):
            await service.wait_readiness(200)
            campaign_id = await plant_campaigns(database)
            ours = f"http://127.0.0.1:{service.port}"
            headers = {"Authorization": f"Bearer {sign_token('ops', 'operator', SECRET)}"}
            rows: list[Row] = []
            for what, path in (("campaign read", f"/{campaign_id}"), ("page of 50 campaigns", "")):
                rows += await compare(
                    what,
                    bare_url=f"{bare}/v1/campaigns{path}",
                    our_url=f"{ours}/v1/campaigns{path}",
                    headers=headers,
                    rate_goal=RATE_GOAL,
                )
            return rows


def run() -> list[Row]:
    """Measure, on an event loop of its own."""
    return asyncio.run(measure())
