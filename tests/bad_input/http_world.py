"""Two running APIs for bad requests: ask them, and look at what their databases hold."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg
import orjson

from deploy.settings import MigrateSettings
from runtime.auth import sign_token
from sandbox.instance import Service
from sandbox.servers import KafkaServer, PostgresServer
from tests.bad_input.http_routes import COUPON, REDEMPTION, REWARD, USED_KEY
from tests.bad_input.http_row import COUPON_API, REWARD_STORE, Caller, Row
from tests.support.coupon_api_process import open_coupon_api
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

_KEY: Final = (
    "insert into idempotency_keys (subject, route, key, body_hash, status, response) values ($1, $2, $3, '', 201, '{}')"
)
_REDEMPTION: Final = """
insert into redemptions (
    redemption_id, member_id, reward_id, coupon_code, points_spent, value_cents, currency, created_at, expires_at
) values ($1, 'm-1', $2, $3, 100, 500, 'EUR', '2026-01-01Z', '2999-01-01Z')
"""
_COUPON: Final = """
insert into coupons (
    code, member_id, reward_id, redemption_id, value_cents, currency, issued_at, expires_at, status, version, source
) values ($1, 'm-1', $2, $3, 500, 'EUR', '2026-01-01Z', '2999-01-01Z', 'issued', 1, 'event')
"""
_PLANTED: Final[Mapping[Service, tuple[tuple[str, ...], ...]]] = {
    REWARD_STORE: (
        ("insert into members values ('m-1', 1000), ('m-2', 1000)",),
        ("insert into rewards values ($1, 'a reward', 100, 10, 500, 'EUR', 30)", REWARD),
        (_REDEMPTION, REDEMPTION, REWARD, COUPON),
        (_KEY, "m-1", "POST /v1/redemptions", USED_KEY),
    ),
    COUPON_API: ((_COUPON, COUPON, REWARD, REDEMPTION), (_KEY, "ops-1", "POST /v1/coupons", USED_KEY)),
}
"""What the rows are about: each statement with its arguments."""


@dataclass(frozen=True, slots=True)
class Api:
    """One running service, and its database as a superuser sees it."""

    process: HttpServiceProcess
    database: asyncpg.Connection
    planted: Mapping[str, str]

    async def contents(self) -> Mapping[str, str]:
        """Return a digest of each table's rows."""
        return await contents_of(self.database)

    async def ask(self, request: bytes, *, is_head: bool = False) -> Answer:
        """Send bytes on a connection of their own and return the answer; it says whether the connection ends."""
        async with RawClient(("127.0.0.1", self.process.port)) as client:
            client.writer.write(request)  # not drained: the server may answer before it has read all of it
            answer = await client.answer(is_head=is_head)
            if answer.closes:
                assert await client.read_to_end() == b""
            return answer


Apis = Mapping[Service, Api]


async def contents_of(connection: asyncpg.Connection) -> dict[str, str]:
    """Return a digest of each table's rows, by the table's name."""
    tables = await connection.fetch("select tablename as name from pg_tables where schemaname = 'public' order by name")
    digest = "(select md5(string_agg(t::text, e'\\n' order by t::text)) from {0} t) as {0}"
    row = await connection.fetchrow("select " + ", ".join(digest.format(table["name"]) for table in tables))
    assert row is not None
    return dict(row.items())


async def written_rows(connection: asyncpg.Connection) -> int:
    """Return how many rows were ever inserted, changed or removed, in transactions that failed too.

    Other sessions tell what they did when they end.
    """
    await connection.execute("select pg_stat_force_next_flush()")
    sql = "select sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint from pg_stat_user_tables"
    count: int = await connection.fetchval(sql)
    return count


@asynccontextmanager
async def open_apis(
    postgres: PostgresServer, kafka: KafkaServer, databases: MigrateSettings, directory: Path
) -> AsyncIterator[Apis]:
    """Start both APIs and plant what rows are about; they are stopped on leaving."""
    topic = await create_topic(kafka)
    place = Place(postgres, kafka, databases.rewards_database, topic, directory)
    async with AsyncExitStack() as stack:
        apis: dict[Service, Api] = {}
        for service, opened, database in (
            (REWARD_STORE, open_reward_store(place, **_LIMITS), databases.rewards_database),
            (COUPON_API, open_coupon_api(postgres, databases.coupons_database, directory, **_LIMITS),
             databases.coupons_database),
        ):  # fmt: skip
            connection = await asyncpg.connect(postgres.url(database), timeout=10)
            stack.push_async_callback(connection.close)
            for statement, *arguments in _PLANTED[service]:
                await connection.execute(statement, *arguments)
            process = await stack.enter_async_context(opened)
            apis[service] = Api(process, connection, await contents_of(connection))
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
