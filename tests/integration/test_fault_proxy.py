"""The TCP fault proxy does to connections exactly what it is told to."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from sandbox.servers.address import LOOPBACK
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy, open_fault_proxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()
        writer.write(b"end")
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def _proxied(
    serve: Serve = _echo,
) -> AsyncIterator[tuple[FaultProxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    server = await asyncio.start_server(serve, LOOPBACK)
    async with server, open_fault_proxy(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        try:
            yield proxy, reader, writer
        finally:
            writer.close()


async def test_bytes_pass_unchanged_and_an_end_is_passed_on() -> None:
    """A megabyte comes back as it went; the server's answer to the client's end arrives."""
    data = bytes(range(256)) * 4_096
    async with _proxied() as (proxy, reader, writer):
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.write_eof()
        assert await reader.read() == b"end"
        await eventually(lambda: proxy.statistics().open == 0)
        assert (proxy.statistics().bytes_up, proxy.statistics().bytes_down) == (len(data), len(data) + 3)


async def test_delay_and_jitter_hold_back_each_piece() -> None:
    """A round trip takes the delays of both ways."""
    async with _proxied() as (proxy, reader, writer):
        proxy.up.delay_seconds = proxy.down.delay_seconds = 0.05
        proxy.down.jitter_seconds = 0.02
        began = time.monotonic()
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        assert time.monotonic() - began >= 0.1


async def test_crumbs_arrive_one_by_one_and_whole() -> None:
    """One byte at a time; nothing is lost or turned round."""
    seen: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000):
            seen.append(len(data))
        writer.close()

    async with _proxied(serve) as (proxy, reader, writer):
        proxy.up.slice_bytes = 1
        proxy.up.delay_seconds = 0.002
        writer.write(b"0123456789")
        writer.write_eof()
        assert await reader.read() == b""
    assert sum(seen) == 10
    assert len(seen) > 1


async def test_black_hole_keeps_the_connection_and_restoring_delivers() -> None:
    """Nothing arrives and nothing ends; afterwards what was sent meanwhile comes."""
    async with _proxied() as (proxy, reader, writer):
        proxy.down.swallow()
        writer.write(b"x")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 0.1)
        assert proxy.statistics().open == 1
        proxy.down.restore()
        assert await reader.readexactly(1) == b"x"


async def test_reset_comes_in_the_middle_of_a_message() -> None:
    """Exactly so many bytes arrive, then the connection is reset on both sides."""
    async with _proxied() as (proxy, reader, writer):
        proxy.down.reset_after(4)
        writer.write(b"0123456789")
        assert await reader.readexactly(4) == b"0123"
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        await eventually(lambda: proxy.statistics().open == 0)


async def test_cut_is_an_orderly_end_and_reset_is_not() -> None:
    """The client sees the end of the stream, or a reset."""
    async with _proxied() as (proxy, reader, writer):
        await _is_through(reader, writer)
        proxy.cut()
        assert await reader.read() == b""
    async with _proxied() as (proxy, reader, writer):
        await _is_through(reader, writer)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_half_close_ends_one_way_only() -> None:
    """The server sees the client's end and what it says afterwards still arrives; what the client says does not."""
    async with _proxied() as (proxy, reader, writer):
        await _is_through(reader, writer)
        proxy.half_close(proxy.up)
        writer.write(b"too late")
        assert await reader.read() == b"end"


async def test_refusing_leaves_open_connections_and_listening_again_uses_the_same_port() -> None:
    """New connections are refused while it lasts."""
    async with _proxied() as (proxy, reader, writer):
        await _is_through(reader, writer)
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, proxy.port)
        await _is_through(reader, writer)
        await proxy.listen()
        second_reader, second_writer = await asyncio.open_connection(LOOPBACK, proxy.port)
        await _is_through(second_reader, second_writer)
        second_writer.close()


async def _is_through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
