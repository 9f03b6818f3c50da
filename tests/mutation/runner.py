"""Run tests against a mutant: in a process of its own that never writes it to a file."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Literal

import pytest
from hypothesis import Phase, settings

Verdict = Literal["survived", "killed", "timeout"]

_PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout", "_hypothesis_pytestplugin")
_OPTIONS = [option for plugin in _PLUGINS for option in ("-p", plugin)]
_OPTIONS += [
    "-x",
    "-q",
    "-m",
    "not thorough",
    "-p",
    "no:cacheprovider",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
]
_OPTIONS += ["-o", "timeout=5", "--hypothesis-profile", "mutation"]
_MEMORY_BYTES = 4 << 30  # a mutant may fill a list for ever
_PAUSE_SECONDS = 0.01

for _name in ("asyncpg", "confluent_kafka", "hypothesis.stateful", *_PLUGINS):
    importlib.import_module(_name)  # once for all mutants: it takes longer than the tests

# The same examples each time, and no search for a smaller one.
settings.register_profile("mutation", derandomize=True, database=None, deadline=None, phases=[Phase.generate])


class _MutantFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module, whose code is the mutant's."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self._name = name
        self._path = path
        self._code = code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)  # noqa: S102  # what a loader does


def judge(path: Path, code: CodeType, tests: Sequence[str], limit_seconds: float, output: Path) -> Verdict:
    """Run these test files with a module of this project replaced, and say whether they noticed; keep their output."""
    module = ".".join(path.with_suffix("").parts)
    child = os.fork()
    if child == 0:
        _run(_MutantFinder(module, path.resolve(), code), tests, output)
    try:
        return _wait(child, limit_seconds)
    finally:
        _kill_group(child)


def _run(finder: _MutantFinder, tests: Sequence[str], output: Path) -> None:
    """Be the child: never returns."""
    status = 1
    try:
        os.setsid()
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), number)
        sys.meta_path.insert(0, finder)
        status = int(pytest.main([*_OPTIONS, *tests]))
    finally:
        os._exit(status)


def _wait(child: int, limit_seconds: float) -> Verdict:
    ends_at = time.monotonic() + limit_seconds
    while time.monotonic() < ends_at:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "survived" if status == 0 else "killed"
        time.sleep(_PAUSE_SECONDS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _kill_group(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)  # what its tests have started
    except ProcessLookupError:
        return
