"""All APIs running for bad requests: ask them, and look at what their databases hold."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from deploy.settings import MigrateSettings
from runtime.auth import sign_token
from sandbox.instance import Service
from tests.bad_input.http_database import (
    COUPON_API_ROWS,
    REWARD_STORE_ROWS,
    Database,
    Servers,
    open_documents,
    open_tables,
)
from tests.bad_input.http_row import CAMPAIGN_API, COUPON_API, REWARD_STORE, Caller, Row
from tests.support.campaign_api_process import open_campaign_api
from tests.support.coupon_api_process import open_coupon_api
from tests.support.mongo_settings import open_mongo_database
from tests.support.raw_http import Answer, RawClient
from tests.support.reward_store_process import Place, open_reward_store
from tests.support.servers import create_topic
from tests.support.service_process import SECRET, HttpServiceProcess

TOKENS: Final[Mapping[Caller, str]] = {
    "member": sign_token("m-1", "member", SECRET, lifetime_seconds=86_400),
    "stranger": sign_token("m-2", "member", SECRET, lifetime_seconds=86_400),
    "operator": sign_token("ops-1", "operator", SECRET, lifetime_seconds=86_400),
}

# Short, so that what never ends is soon refused; long enough for a busy machine to send what does end, and to read
# the answer to what was too much.
_LIMITS: Final = {
    "HTTP__HEADER_TIMEOUT_SECONDS": "5",
    "HTTP__BODY_TIMEOUT_SECONDS": "5",
    "HTTP__LINGER_SECONDS": "5",
}


@dataclass(frozen=True, slots=True)
class Api:
    """One running service, and its database as a superuser sees it."""

    process: HttpServiceProcess
    database: Database
    planted: Mapping[str, str]

    async def ask(self, request: bytes, *, is_head: bool = False) -> Answer:
        """Send bytes on a connection of their own and return the answer; it says whether the connection ends."""
        async with RawClient(("127.0.0.1", self.process.port)) as client:
            client.writer.write(request)  # not drained: the server may answer before it has read all of it
            answer = await client.answer(is_head=is_head)
            if answer.closes:
                assert await client.read_to_end() == b""
            return answer


Apis = Mapping[Service, Api]


@asynccontextmanager
async def open_apis(servers: Servers, databases: MigrateSettings, directory: Path) -> AsyncIterator[Apis]:
    """Start all APIs and plant what rows are about; they are stopped on leaving."""
    topic = await create_topic(servers.kafka)
    place = Place(servers.postgres, servers.kafka, databases.rewards_database, topic, directory)
    async with AsyncExitStack() as stack:
        mongo = await stack.enter_async_context(open_mongo_database(servers.mongo))
        opened = {
            REWARD_STORE: (
                open_reward_store(place, **_LIMITS),
                open_tables(servers.postgres.url(databases.rewards_database), REWARD_STORE_ROWS),
            ),
            COUPON_API: (
                open_coupon_api(servers.postgres, databases.coupons_database, directory, **_LIMITS),
                open_tables(servers.postgres.url(databases.coupons_database), COUPON_API_ROWS),
            ),
            CAMPAIGN_API: (
                open_campaign_api(mongo, directory, **_LIMITS),
                open_documents(servers.mongo, mongo.database),
            ),
        }
        apis: dict[Service, Api] = {}
        for service, (starting, holding) in opened.items():
            database = await stack.enter_async_context(holding)
            process = await stack.enter_async_context(starting)
            apis[service] = Api(process, database, await database.contents())
        await asyncio.gather(*(api.process.wait_readiness(200) for api in apis.values()))
        yield apis


def meaning(answer: Answer) -> tuple[int, dict[str, str], object]:
    """Return what must be the same for the same input: all but times and the request's id."""
    headers = {
        name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id", "server-timing"}
    }
    if headers.get("content-type") != "application/problem+json" or not answer.body:
        return answer.status, headers, answer.body
    problem = orjson.loads(answer.body)
    problem.pop("request_id")
    return answer.status, headers | {"content-length": ""}, problem


def differences(row: Row, answer: Answer) -> list[str]:
    """Compare an answer with the row's; an empty list when it is the one."""
    found = []
    if answer.status != row.status:
        found.append(f"status {answer.status} instead of {row.status}")
    wanted = {name: answer.headers.get(name) for name in row.headers}
    if wanted != row.headers:
        found.append(f"headers {wanted} instead of {dict(row.headers)}")
    if row.code is not None and answer.body:
        problem = answer.json()
        errors = tuple((error["field"], error["rule"]) for error in problem.get("errors", ()))
        if (problem["code"], errors) != (row.code, row.errors):
            found.append(f"{problem['code']} {errors} instead of {row.code} {row.errors}")
    return found
