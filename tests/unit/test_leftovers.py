"""The checks that fail a unit test which leaves something behind: each must bite."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(60)  # a whole test run is started

CONFTEST = """
from tests.support.leftovers import _no_leftover_tasks, no_leftover_tasks, no_leftovers
"""

CLEAN = """
async def test_clean():
    await asyncio.create_task(asyncio.sleep(0))
    await asyncio.to_thread(time.sleep, 0)
    process = await asyncio.create_subprocess_exec("true")
    await process.wait()

def test_clean_thread():
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
"""

TASK = """
async def forget_to_end():
    await asyncio.Event().wait()

async def test_task():
    keep.append(asyncio.create_task(forget_to_end()))
"""

FAULT = """
async def fail():
    raise ValueError("nobody asked")

async def test_fault():
    asyncio.create_task(fail())
    await asyncio.sleep(0)
"""

THREAD = """
def test_thread():
    thread = threading.Thread(target=threading.Event().wait, name="left-over", daemon=True)
    thread.start()
"""

SOCKET_HELD = """
def test_socket():
    keep.append(socket.socket())
"""

SOCKET_DROPPED = """
def test_socket():
    socket.socket()
"""

SLEEP = """
async def test_sleep():
    try:
        time.sleep(0)
    except RuntimeError:
        pass
"""

CONNECT = """
async def test_connect():
    with socket.socket() as client, socket.create_server(("127.0.0.1", 0)) as server:
        client.connect(server.getsockname())
"""

RESOLVE = """
async def test_resolve():
    socket.getaddrinfo("127.0.0.1", 80)
"""

PROCESS = """
async def test_process():
    subprocess.run(["true"])
"""


OFFENDERS = {
    "task": (TASK, "test_task.py:5 in forget_to_end (Event.wait), created at"),
    "fault": (FAULT, "never retrieved: ValueError('nobody asked')"),
    "thread": (THREAD, "a thread still runs: left-over"),
    "socket_held": (SOCKET_HELD, "a socket is still open"),
    "socket_dropped": (SOCKET_DROPPED, "ResourceWarning: unclosed <socket"),
    "sleep": (SLEEP, "the event loop was blocked by time.sleep"),
    "connect": (CONNECT, "the event loop was blocked by socket.connect"),
    "resolve": (RESOLVE, "the event loop was blocked by socket.getaddrinfo"),
    "process": (PROCESS, "the event loop was blocked by subprocess.Popen"),
}


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run the clean tests and all offenders in a process of its own and return what was said of each file."""
    directory = tmp_path_factory.mktemp("offenders")
    (directory / "conftest.py").write_text(CONFTEST)
    for name, source in {"clean": CLEAN, **{name: source for name, (source, _) in OFFENDERS.items()}}.items():
        head = "import asyncio, socket, subprocess, threading, time\nkeep = []\n"
        (directory / f"test_{name}.py").write_text(head + source)
    report = directory / "report.xml"
    plugins = [f"-p{name}" for name in ("no:cacheprovider", "pytest_asyncio.plugin", "pytest_timeout")]
    places = ["-c", str(ROOT / "pyproject.toml"), f"--rootdir={directory}", f"--junitxml={report}", str(directory)]
    command = [sys.executable, "-m", "pytest", *plugins, *places]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # the others take seconds to load
    subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=60)
    said: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # our own file
        name = case.attrib["classname"].split("test_")[-1]
        texts = ["".join(part.itertext()) + part.attrib.get("message", "") for part in case]
        said[name] = said.get(name, "") + "".join(texts)
    return said


def test_clean_tests_pass(complaints: dict[str, str]) -> None:
    """Tests that end what they start pass, also with threads and processes started through asyncio."""
    assert complaints["clean"] == ""


@pytest.mark.parametrize("name", OFFENDERS)
def test_offender_fails_and_is_named(complaints: dict[str, str], name: str) -> None:
    """A test that leaves something behind, or blocks its event loop, fails with a message that names the thing."""
    assert OFFENDERS[name][1] in complaints[name]
