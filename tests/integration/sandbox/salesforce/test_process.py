"""The sandbox as a process of its own: its start, its stop, its death."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from sandbox.salesforce import Fault, FaultKind, SalesforceControl
from sandbox.servers import KeptProcess, Program, start_process
from sandbox.servers.address import free_port
from tests.support.eventually import eventually
from tests.support.salesforce import APP, MASTER, SalesforceClient, codes, master, open_client
from tests.support.seeds import seeded
from tests.support.service_process import ROOT


@asynccontextmanager
async def open_process(directory: Path, port: int, *arguments: str) -> AsyncIterator[KeptProcess]:
    """Start the sandbox on this port and wait until it says that it listens; it is stopped on leaving."""
    (directory / "id").write_text(APP.client_id)
    (directory / "secret").write_text(APP.client_secret)
    files = {"log": "applied.log", "client-id-file": "id", "client-secret-file": "secret"}
    output = directory / "output"
    output.write_text("")
    command = [sys.executable, "-m", "sandbox.salesforce", f"--port={port}", *arguments]
    command += [f"--{name}={directory / file}" for name, file in files.items()]
    process = await start_process(Program(name="salesforce", command=command, log=output, directory=ROOT))
    try:
        await eventually(lambda: "listens on" in output.read_text() or not process.is_running, seconds=40)
        yield process
    finally:
        await process.stop()
        process.release()


async def test_it_listens_when_it_says_so_and_ends_with_status_0(tmp_path: Path) -> None:
    """The first call after its line is served; after SIGTERM it ends with status 0, though a connection is open."""
    port = free_port()
    async with open_process(tmp_path, port) as process, open_client(f"http://127.0.0.1:{port}") as client:
        assert codes(await client.upsert(MASTER, master("a"))) == [None]
        assert await process.stop(signal.SIGTERM, grace_seconds=20) == 0


async def test_a_stop_serves_what_is_under_way(tmp_path: Path) -> None:
    """A call that a fault holds back is answered before the end, one that hangs is not, and the status is 0."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with open_process(tmp_path, port) as process, open_client(url) as client, SalesforceControl(url) as control:
        await control.switch_on(Fault(kind=FaultKind.HANG, calls=1))
        await control.switch_on(Fault(kind=FaultKind.SLOW, seconds=600, calls=1))

        async def are_left(count: int) -> bool:
            return len(await control.faults()) == count

        hanging = asyncio.create_task(client.upsert(MASTER, master("a")))
        await eventually(lambda: are_left(1))
        slow = asyncio.create_task(client.upsert(MASTER, master("b")))
        await eventually(lambda: are_left(0))
        assert await process.stop(signal.SIGTERM, grace_seconds=20) == 0
        assert codes(await slow) == [None]
        with pytest.raises(httpx.HTTPError):
            await hanging


async def test_the_connection_itself_goes_wrong_in_a_process_too(tmp_path: Path) -> None:
    """On the event loop of the process a client sees a reset and half a body as it does in this one."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    async with open_process(tmp_path, port), open_client(url) as client, SalesforceControl(url) as control:
        for kind, error in ((FaultKind.RESET, httpx.ReadError), (FaultKind.HALF_BODY, httpx.RemoteProtocolError)):
            await control.switch_on(Fault(kind=kind, after_apply=True, calls=1))
            with pytest.raises(error):
                await client.upsert(MASTER, master(kind))
        assert [entry.external_id async for entry in control.applied()] == ["reset", "half_body"]
        assert (await control.counts()).upsert == {"reset": 1, "half_body": 1}


async def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Killed at random under calls and started again, it holds every acknowledged record, and none that nobody sent."""
    random = seeded("kills")
    port = free_port()
    attempted: set[str] = set()
    acknowledged: set[str] = set()

    async def send(client: SalesforceClient, name: str) -> None:
        for number in range(10_000):
            ids = [f"{name}-{number}-{place}" for place in range(20)]
            attempted.update(ids)
            try:
                response = await client.upsert(MASTER, *[master(one) for one in ids])
            except httpx.TransportError:
                return
            assert codes(response) == [None] * 20
            acknowledged.update(ids)

    async def wait_for(count: int) -> None:
        await eventually(lambda: len(acknowledged) >= count, seconds=40, pause_seconds=0.001)

    for life in range(5):
        async with open_process(tmp_path, port) as process, open_client(f"http://127.0.0.1:{port}") as client:
            senders = [asyncio.create_task(send(client, f"{life}-{one}")) for one in range(4)]
            await wait_for(len(acknowledged) + random.randrange(100, 2_000))
            await process.kill()
            await asyncio.gather(*senders)
    url = f"http://127.0.0.1:{port}"
    async with open_process(tmp_path, port), SalesforceControl(url) as control:
        held = [record.fields["ExternalId__c"] async for record in control.records(MASTER)]
        applied = [entry.external_id async for entry in control.applied()]
    assert len(held) == len(set(held))
    assert acknowledged <= set(held) <= attempted
    assert sorted(applied) == sorted(held)


async def test_what_keeps_it_from_serving_is_told_with_status_1(tmp_path: Path) -> None:
    """A port in use and a log that another process holds are each told in one line."""
    port, other = free_port(), free_port()
    async with open_process(tmp_path, port):
        for taken, message in ((port, "in use"), (other, "in use by another process")):
            (directory := tmp_path / str(taken)).mkdir()
            if taken == other:
                (directory / "applied.log").symlink_to(tmp_path / "applied.log")
            async with open_process(directory, taken) as failed:
                assert await failed.wait(20) == 1
            (line,) = (directory / "output").read_text().splitlines()
            assert line.startswith("the sandbox cannot serve: ")
            assert message in line
