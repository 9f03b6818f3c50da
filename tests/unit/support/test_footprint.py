"""What a process holds is counted by kind."""

import asyncio
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from tests.support.footprint import footprint_of, judge_settled
from tests.support.judgement import Rule

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


async def test_open_things_are_differences_and_closed_ones_are_not(tmp_path: Path) -> None:
    """A file, a socket and a thread too many are each named; when they are gone nothing differs."""
    idle = footprint_of(os.getpid())
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    with (tmp_path / "open").open("wb"), socket.socket(), socket.socket():
        judgement = footprint_of(os.getpid()).judge(idle, memory_factor=10)
    assert judgement.differences[Rule.NO_LEAK] == (
        f"{idle.files + 1} files instead of {idle.files}",
        f"{idle.sockets + 2} sockets instead of {idle.sockets}",
        f"{idle.threads + 1} threads instead of {idle.threads}",
    )
    end.set()
    thread.join()
    assert (await judge_settled(os.getpid(), idle)).is_ok  # the kernel still counts it for a moment
    assert footprint_of(os.getpid()).judge(idle, memory_factor=0.001).failed(Rule.NO_LEAK)


async def test_what_is_about_to_be_closed_is_waited_for_and_what_stays_open_is_told() -> None:
    """The judgement is of the moment in which all is back at idle, or of the last one."""
    idle = footprint_of(os.getpid())
    with socket.socket() as passing:
        asyncio.get_running_loop().call_later(0.05, passing.close)
        assert (await judge_settled(os.getpid(), idle)).is_ok
    with socket.socket():
        assert (await judge_settled(os.getpid(), idle, seconds=0.05)).failed(Rule.NO_LEAK)
