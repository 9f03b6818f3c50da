"""Fixtures that fail a test which leaves something running or open, or which blocks the event loop.

Each is in force for every test of a directory whose conftest.py imports all three.
"""

import asyncio
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from patterns.leak import leaked_tasks, record_creation

_THREAD_END_SECONDS = 1.0
_TASK_END_ROUNDS = 20
_OPEN_FILES = Path("/proc/self/fd")
_STARTS_PROCESSES_ITSELF = ("asyncio/unix_events.py", "asyncio/base_events.py")

_blocking_calls: list[str] = []
_is_watching = False


class BlockingCallError(RuntimeError):
    """A call that may block was made in the thread of a running event loop."""


def _refuse_blocking_calls(event: str, arguments: tuple[Any, ...]) -> None:
    """Hear of every audited call of the interpreter; an audit hook stays for the life of the process."""
    if event not in _MAY_BLOCK or not _is_watching or asyncio._get_running_loop() is None:
        return
    if _MAY_BLOCK[event](arguments):
        _blocking_calls.append(f"{event}{arguments!r}")
        raise BlockingCallError(f"{event}{arguments!r} would block the running event loop")


def _is_blocking_socket(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[0].gettimeout() != 0)


def _is_not_by_asyncio(_: tuple[Any, ...]) -> bool:
    frame = sys._getframe()
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]  # ends the loop
        if frame.f_code.co_filename.endswith(_STARTS_PROCESSES_ITSELF) and "subprocess" in frame.f_code.co_name:
            return False
    return True


def _always(_: tuple[Any, ...]) -> bool:
    return True


_MAY_BLOCK: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    "time.sleep": _always,
    "socket.getaddrinfo": _always,
    "socket.gethostbyname": _always,
    "socket.gethostbyaddr": _always,
    "socket.connect": _is_blocking_socket,
    "subprocess.Popen": _is_not_by_asyncio,
    "os.system": _always,
}
sys.addaudithook(_refuse_blocking_calls)


_sleep = time.sleep


def _audited_sleep(seconds: float) -> None:
    """Sleep as Python 3.13 does, which announces it; earlier versions do not."""
    sys.audit("time.sleep", seconds)
    _sleep(seconds)


@pytest.fixture(autouse=True)
def no_leftovers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test after which a thread still runs or a socket is still open, or which blocked an event loop."""
    global _is_watching  # noqa: PLW0603  # the hook cannot be taken out
    threads, sockets = set(threading.enumerate()), _open_sockets()
    if sys.version_info < (3, 13):
        monkeypatch.setattr(time, "sleep", _audited_sleep)
    _blocking_calls.clear()
    _is_watching = True
    yield
    _is_watching = False
    gc.collect()  # what is only garbage reports itself here, as a warning that is an error
    problems = [f"the event loop was blocked by {call}" for call in _blocking_calls]
    for thread in set(threading.enumerate()) - threads:
        thread.join(_THREAD_END_SECONDS)
        if thread.is_alive():
            problems.append(f"a thread still runs: {thread.name}")
    problems.extend(f"a socket is still open: {name}" for name in _open_sockets() - sockets)
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
async def _no_leftover_tasks() -> AsyncIterator[None]:
    """Fail a test after which a task is unfinished, or of which an error only reached the loop's exception handler."""
    loop = asyncio.get_running_loop()
    faults: list[str] = []
    loop.set_exception_handler(lambda _, fault: faults.append(f"{fault['message']}: {fault.get('exception')!r}"))
    record_creation(loop)
    yield
    for _ in range(_TASK_END_ROUNDS):
        if not leaked_tasks():
            break
        await asyncio.sleep(0)
    faults.extend(f"leaked: {site}" for site in leaked_tasks())
    gc.collect()  # a task whose error nobody asked for reports it when it is collected
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@pytest.fixture(autouse=True)
def no_leftover_tasks(request: pytest.FixtureRequest, no_leftovers: None) -> None:
    """Check the tasks of a test that is a coroutine, in its own event loop, before that is closed."""
    del no_leftovers  # asked for so that it comes after the event loop was closed
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("_no_leftover_tasks")


def _open_sockets() -> set[str]:
    """Name the open sockets of this process, where the system shows them (Linux)."""
    if not _OPEN_FILES.is_dir():
        return set()
    names = set()
    for file in _OPEN_FILES.iterdir():
        try:
            names.add(str(file.readlink()))
        except OSError:  # the very file that lists the directory
            continue
    return {name for name in names if name.startswith("socket:")}
