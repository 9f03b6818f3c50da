"""More than can be served: the excess is refused at once, the rest served, and all is well afterwards (fault H13)."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.support.eventually import eventually
from tests.support.http_serving import open_server
from tests.support.raw_http import RawClient

SLEEP = b"GET /sleep/0.3 HTTP/1.1\r\nHost: test\r\n\r\n"


async def test_excess_gets_503_while_the_accepted_are_still_at_work() -> None:
    """Of 30 requests at once with room for 10, 20 are refused before the first of the 10 is done."""
    order: list[int] = []

    async def ask(client: RawClient) -> None:
        await client.send(SLEEP)
        answer = await client.answer()
        order.append(answer.status)
        if answer.status == 503:
            assert (answer.code, answer.headers["retry-after"], answer.closes) == ("overloaded", "1", False)

    async with open_server(in_flight_max=10) as server:
        clients = [RawClient(server.address) for _ in range(30)]
        for client in clients:
            await client.__aenter__()
        await asyncio.gather(*(ask(client) for client in clients))
        assert order == [503] * 20 + [200] * 10
        for client in clients:
            assert (await client.get()).status == 200, "a refused client keeps its connection"
            await client.__aexit__(None, None, None)


async def test_storm_of_three_times_the_room_leaves_the_server_as_it_was() -> None:
    """Under an open storm every answer is 200 or 503, nothing hangs, and at its end nothing is left at work."""
    statuses: Counter[int] = Counter()

    async def storm(address: tuple[str, int]) -> None:
        async with RawClient(address) as client:
            for _ in range(10):
                statuses[(await client.get("/sleep/0.01")).status] += 1

    async with open_server(in_flight_max=20) as server:
        async with asyncio.timeout(30):
            await asyncio.gather(*(storm(server.address) for _ in range(60)))
        assert set(statuses) == {200, 503}
        assert statuses.total() == 600
        await eventually(lambda: server.statistics().running == server.statistics().connections == 0)
        async with RawClient(server.address) as client:
            assert (await client.get()).status == 200


async def test_slow_bodies_take_no_room_from_others() -> None:
    """Requests whose bodies drip in do not count as in flight: a full house of them leaves room for everybody else."""
    async with open_server(in_flight_max=2, body_timeout_seconds=5) as server:
        slow = [RawClient(server.address) for _ in range(20)]
        for client in slow:
            await client.__aenter__()
            await client.send(b"POST /ok HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\n1")
        async with RawClient(server.address) as good:
            for _ in range(20):
                assert (await good.get()).status == 200
        for client in slow:
            await client.__aexit__(None, None, None)
