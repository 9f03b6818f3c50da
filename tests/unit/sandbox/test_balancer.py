"""The members' balancer: it follows readiness, steps past refused connections, and sends nothing twice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest

from patterns import bubble
from sandbox.balancer import Balancer, RequestFailed


@dataclass
class _Backend:
    """An instance that says what a test tells it to say."""

    name: str
    base_url: str | None
    ready: bool = True

    async def is_ready(self) -> bool:
        """Say it."""
        return self.ready


class _Network:
    """Answer for every address, and remember who was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.faults: dict[str, Callable[[httpx.Request], Exception]] = {}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer 200, or fail as the address is told to fail."""
        host = request.url.host
        self.asked.append(host)
        if host in self.faults:
            raise self.faults[host](request)
        return httpx.Response(200, text=host)


@asynccontextmanager
async def _balancer(network: _Network, *backends: _Backend) -> AsyncIterator[Balancer]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(network)) as client:
        balancer = Balancer(lambda: backends, client, timeout_seconds=5)
        await balancer.look()
        yield balancer


def _refuse(request: httpx.Request) -> Exception:
    return httpx.ConnectError("refused", request=request)


def _cut(request: httpx.Request) -> Exception:
    return httpx.ReadError("cut", request=request)


A, B = _Backend("a", "http://a"), _Backend("b", "http://b")


async def test_requests_are_spread_over_the_ready_instances() -> None:
    """Two ready instances get the requests in turn."""
    network = _Network()
    async with _balancer(network, A, B) as balancer:
        for _ in range(4):
            await balancer.send("GET", "/", headers={})
    assert sorted(network.asked) == ["a", "a", "b", "b"]
    assert network.asked[0] != network.asked[1]


async def test_instance_that_is_not_ready_gets_nothing() -> None:
    """While one of two instances is not ready the other one gets everything."""
    network = _Network()
    async with _balancer(network, A, _Backend("b", "http://b", ready=False)) as balancer:
        for _ in range(4):
            await balancer.send("GET", "/", headers={})
        assert balancer.statistics().ready == 1
        assert balancer.statistics().known == 2
    assert network.asked == ["a"] * 4


async def test_nobody_ready_tries_all() -> None:
    """Where readiness says nobody, the addresses are tried all the same: what was heard may be old."""
    network = _Network()
    async with _balancer(network, _Backend("a", "http://a", ready=False)) as balancer:
        assert (await balancer.send("GET", "/", headers={})).text == "a"


async def test_refused_connection_tries_the_next_address() -> None:
    """A refused connection has sent nothing, so the next address is asked and its answer returned."""
    network = _Network()
    network.faults["a"] = _refuse
    async with _balancer(network, A, B) as balancer:
        answers = [(await balancer.send("POST", "/", headers={}, content=b"{}")).text for _ in range(2)]
        assert balancer.statistics().refused == 1
    assert answers == ["b", "b"]


async def test_everybody_refusing_fails_the_request() -> None:
    """When every address refuses, the request has failed, and each address was asked once."""
    network = _Network()
    network.faults = {"a": _refuse, "b": _refuse}
    async with _balancer(network, A, B) as balancer:
        with pytest.raises(RequestFailed, match="no instance accepts"):
            await balancer.send("GET", "/", headers={})
    assert sorted(network.asked) == ["a", "b"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_request_that_was_sent_is_not_sent_again(method: str) -> None:
    """A connection that breaks after the request was sent fails it; no other address sees it, not even a GET."""
    network = _Network()
    network.faults = {"a": _cut, "b": _cut}
    async with _balancer(network, A, B) as balancer:
        with pytest.raises(RequestFailed, match="ReadError: cut"):
            await balancer.send(method, "/", headers={})
    assert len(network.asked) == 1


async def test_shared_address_is_tried_once() -> None:
    """Instances behind one listening socket are one address."""
    network = _Network()
    network.faults["a"] = _refuse
    async with _balancer(network, A, _Backend("a2", "http://a"), _Backend("worker", None)) as balancer:
        with pytest.raises(RequestFailed):
            await balancer.send("GET", "/", headers={})
    assert network.asked == ["a"]


def test_answer_that_does_not_come_fails_the_request_in_time() -> None:
    """A request ends by the balancer's own deadline, whatever the transport does."""

    async def hang(_request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(3_600)
        raise AssertionError

    async def scenario() -> float:
        async with httpx.AsyncClient(transport=httpx.MockTransport(hang)) as client:
            balancer = Balancer(lambda: [A], client, timeout_seconds=5)
            with pytest.raises(RequestFailed, match="TimeoutError"):
                await balancer.send("GET", "/", headers={})
        return asyncio.get_running_loop().time()

    assert bubble(scenario) == 5.0


def test_watch_follows_readiness() -> None:
    """An instance that stops being ready is known as such at the next look."""

    async def scenario() -> tuple[int, int]:
        backend = _Backend("a", "http://a")
        async with httpx.AsyncClient(transport=httpx.MockTransport(_Network())) as client:
            balancer = Balancer(lambda: [backend], client, timeout_seconds=5)
            watching = asyncio.create_task(balancer.watch(0.2))
            await asyncio.sleep(0.1)
            before = balancer.statistics().ready
            backend.ready = False
            await asyncio.sleep(0.2)
            after = balancer.statistics().ready
            watching.cancel()
            await asyncio.wait([watching])
        return before, after

    assert bubble(scenario) == (1, 0)
