"""The API on the real store: what only a database can show."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from runtime.postgres import open_pool
from runtime.settings import PostgresSettings
from services.coupon_api.store import PostgresCouponStore
from services.coupon_api.trace import Tracer
from tests.support.coupon_api_client import SECRET, Api, check_answers, issue_body
from tests.support.coupon_store_contract import SECOND, some_coupon
from tests.support.stored_coupon import put_coupon


@pytest.fixture
async def api(
    postgres_settings: PostgresSettings, administrator: "asyncpg.Connection", tmp_path: Path
) -> AsyncIterator[Api]:
    """The API on an empty database."""
    del administrator  # it emptied the tables
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    async with open_pool(postgres_settings) as pool:
        yield Api(PostgresCouponStore(pool, Tracer(capacity=1_024)), secret_file)


@pytest.fixture
async def member(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """The member m-1."""
    async with api.client("m-1", "member") as client:
        yield client


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """An operator."""
    async with api.client("ops-1", "operator") as client:
        yield client


async def test_answers_from_the_database_are_as_the_document_declares_them(
    administrator: "asyncpg.Connection", member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """Nothing validates an answer at run time, so this does: each kind of success fits its declared schema."""
    coupons = [some_coupon(), some_coupon(), some_coupon(expires=-SECOND)]
    for coupon in coupons:
        await put_coupon(administrator, coupon)

    await check_answers(member, operator, coupons[0], coupons[1])


async def test_100_racing_requests_redeem_once(administrator: "asyncpg.Connection", member: httpx.AsyncClient) -> None:
    """All get the same bytes, and the database has one change."""
    coupon = some_coupon()
    await put_coupon(administrator, coupon)
    answers = await asyncio.gather(*(member.post(f"/v1/coupons/{coupon.code}/redeem") for _ in range(100)))

    assert Counter(answer.status_code for answer in answers) == {200: 100}
    assert len({answer.content for answer in answers}) == 1
    assert await administrator.fetchval("select version from coupons") == 2


async def test_racing_orders_with_one_key_issue_once(
    administrator: "asyncpg.Connection", operator: httpx.AsyncClient
) -> None:
    """Each racer gets the one answer, or 409 while the work is under way; nobody gets a coupon of their own."""
    body, key = issue_body(), {"idempotency-key": "key-00001"}
    answers = await asyncio.gather(*(operator.post("/v1/coupons", json=body, headers=key) for _ in range(50)))
    contents = {answer.content for answer in answers if answer.status_code == 201}
    codes = {answer.json()["code"] for answer in answers if answer.status_code != 201}

    assert len(contents) == 1
    assert codes <= {"request-in-progress"}
    assert await administrator.fetchval("select count(*) from coupons") == 1


async def test_spans_of_a_real_read_come_back(
    administrator: "asyncpg.Connection", api: Api, member: httpx.AsyncClient
) -> None:
    """The header and the log line tell how long the store took."""
    coupon = some_coupon()
    await put_coupon(administrator, coupon)
    answer = await member.get(f"/v1/coupons/{coupon.code}")

    assert answer.headers["server-timing"].startswith("find_coupon;dur=")
    assert api.lines[-1]["server_timing"] == answer.headers["server-timing"]


async def test_schema_that_grows_under_load_disturbs_nobody(
    administrator: "asyncpg.Connection", member: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    """While an expanding migration adds and takes away columns and indexes, reads and writes go on and all succeed.

    So this release runs on the schema of the next, as long as that one only expands.
    """
    coupons = [some_coupon() for _ in range(20)]
    for coupon in coupons:
        await put_coupon(administrator, coupon)
    is_over = asyncio.Event()
    statuses: Counter[int] = Counter()

    async def read() -> None:
        while not is_over.is_set():
            statuses[(await member.get(f"/v1/coupons/{coupons[0].code}")).status_code] += 1

    async def grow() -> None:
        for number, coupon in enumerate(coupons):
            await administrator.execute(f"alter table coupons add column later_{number} text default 'x'")
            await administrator.execute(f"create index later_{number} on coupons (later_{number})")
            statuses[(await member.post(f"/v1/coupons/{coupon.code}/redeem")).status_code] += 1
            body, key = issue_body(), {"idempotency-key": f"key-{number:05}"}
            assert (await operator.post("/v1/coupons", json=body, headers=key)).status_code == 201
            await administrator.execute(f"alter table coupons drop column later_{number}")

    async def grow_to_the_end() -> None:
        try:
            await grow()
        finally:
            is_over.set()

    await asyncio.gather(read(), read(), grow_to_the_end())

    assert set(statuses) == {200}
    assert statuses[200] > 40
