"""The whole API on a real database: answers, and requests that race."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from loyalty.reward import Member
from tests.support.eventually import eventually
from tests.support.reward_store_client import KEY, Api, check_answers
from tests.support.reward_store_contract import some_reward
from tests.support.reward_world import PostgresWorld

REDEEM = {"reward_id": "rw-coffee"}


@pytest.fixture
async def world(world: PostgresWorld) -> PostgresWorld:
    """Two rewards, and a member with 250 points."""
    await world.put_reward(some_reward("rw-tea"))
    return world


@pytest.fixture
def api(world: PostgresWorld, tmp_path: Path) -> Api:
    """The API on the real store."""
    return Api(world.store, world.store, tmp_path / "secret")


@pytest.fixture
async def member(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """The member m-1."""
    async with api.client("m-1") as client:
        yield client


async def test_every_answer_fits_its_declared_schema(member: httpx.AsyncClient) -> None:
    """What the database holds comes out as the API's documents say."""
    await check_answers(member)


async def test_two_hundred_requests_for_the_last_item_sell_it_once(world: PostgresWorld, api: Api) -> None:
    """One gets it; the others are told `sold-out`, or at first `overloaded`, and then `sold-out` when they repeat."""
    await world.put_reward(some_reward("rw-last", stock=1))
    clients = []
    for number in range(200):
        await world.put_member(Member(f"m-r{number}", 100))
        clients.append(api.client(f"m-r{number}"))
    body = {"reward_id": "rw-last"}
    rounds = []
    for share in (clients, clients[:100], clients[100:]):
        calls = [client.post("/v1/redemptions", json=body, headers=KEY) for client in share]
        answers = await asyncio.gather(*calls)
        rounds.append(Counter((answer.status_code, answer.json().get("code")) for answer in answers))
    await asyncio.gather(*(client.aclose() for client in clients))
    assert rounds[0][201, None] == 1
    assert set(rounds[0]) <= {(201, None), (409, "sold-out"), (503, "overloaded")}
    assert rounds[1] + rounds[2] == {(201, None): 1, (409, "sold-out"): 199}
    assert len(await world.events()) == 1


async def test_a_key_in_use_is_409_until_its_work_is_done(
    world: PostgresWorld, member: httpx.AsyncClient, administrator: asyncpg.Connection
) -> None:
    """While the first request waits for a lock the second is refused at once; afterwards it gets the first's answer."""
    await administrator.execute("begin")
    await administrator.execute("select from rewards where reward_id = 'rw-coffee' for update")
    first = asyncio.create_task(member.post("/v1/redemptions", json=REDEEM, headers=KEY))
    busy = "select count(*) from pg_locks where not granted"
    await eventually(lambda: administrator.fetchval(busy))
    second = await member.post("/v1/redemptions", json=REDEEM, headers=KEY)
    assert (second.status_code, second.json()["code"]) == (409, "request-in-progress")
    await administrator.execute("rollback")
    answer = await first
    again = await member.post("/v1/redemptions", json=REDEEM, headers=KEY)
    assert (answer.status_code, again.content) == (201, answer.content)
    assert len(await world.redemptions()) == 1


async def test_racing_cancellations_pay_back_once(world: PostgresWorld, member: httpx.AsyncClient) -> None:
    """Ten requests to cancel the same redemption all hear that it is cancelled, and points return once."""
    redeemed = await member.post("/v1/redemptions", json=REDEEM, headers=KEY)
    path = f"/v1/redemptions/{redeemed.json()['redemption_id']}/cancel"
    answers = await asyncio.gather(*(member.post(path) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert (await world.store.member("m-1")).points == 250
    assert len(await world.events()) == 2


async def test_a_lock_held_too_long_is_503_and_leaves_nothing(
    world: PostgresWorld, member: httpx.AsyncClient, administrator: asyncpg.Connection
) -> None:
    """A wait for another's lock is bounded by the server, and what was begun is rolled back."""
    await administrator.execute("begin")
    await administrator.execute("select from members where member_id = 'm-1' for update")
    answer = await member.post("/v1/redemptions", json=REDEEM, headers=KEY)
    await administrator.execute("rollback")
    assert (answer.status_code, answer.json()["code"]) == (503, "dependency-unavailable")
    assert (await world.store.reward("rw-coffee")).stock == 10
    assert (await member.post("/v1/redemptions", json=REDEEM, headers=KEY)).status_code == 201
