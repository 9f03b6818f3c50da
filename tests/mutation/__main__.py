"""Put small faults into `patterns/`, one at a time, and see that tests notice: `python -m tests.mutation [FILE ...]`.

Status 1 when a mutant survives that `docs/mutants.md` does not explain, or when the page explains one that is no more.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from types import CodeType

from tests.mutation.mutant import Mutant, mutants_of
from tests.mutation.runner import judge

PACKAGE = Path("patterns")
TESTS = Path("tests/unit/patterns")
PAGE = Path("docs/mutants.md")
LIMIT_SECONDS = 120.0
CHANNEL_TESTS = (
    "test_channel_close.py", "test_channel_cancel.py", "test_select.py", "test_select_waiting.py",
    "test_channel_model.py", "test_budget.py", "test_select_threads.py", "test_sync_channel.py", "test_channel.py",
    "test_channel_shuffled.py", "test_sync_channel_shuffled.py",
)  # fmt: skip
CONTEXT_TESTS = (
    "test_context.py", "test_context_deadline.py", "test_context_after_func.py", "test_context_run.py",
    "test_lost_tasks.py",
)  # fmt: skip
TESTS_OF = {
    "_budget": ("test_budget.py",),
    "_case": CHANNEL_TESTS,
    "_core": (*CHANNEL_TESTS, "test_ticker.py"),
    "_interruption": CONTEXT_TESTS,
    "_launch": CONTEXT_TESTS,
    "_loop": ("test_bubble_threads.py", "test_sync_channel.py", *CONTEXT_TESTS),
    "_lost_body": ("test_lost_bodies.py",),
    "_scope": CONTEXT_TESTS,
    "_timer": ("test_timer.py", "test_ticker.py", *CONTEXT_TESTS),
    "_waiter": ("test_lost_tasks.py", *CHANNEL_TESTS, "test_wait_group.py"),
    "bubble": ("test_bubble.py", "test_bubble_threads.py"),
    "channel": CHANNEL_TESTS,
    "context": (*CONTEXT_TESTS, "test_budget.py"),
    "error_group": (
        "test_error_group.py",
        "test_error_group_cancel.py",
        "test_error_group_limit.py",
        "test_lost_bodies.py",
    ),
    "errors": ("test_shutdown_signals.py", "test_shutdown.py"),  # the one error that has code is a signal's
    "mutex": ("test_mutex.py", "test_budget.py"),
    "once": ("test_once.py", "test_once_threads.py"),
    "select": CHANNEL_TESTS,
    "shutdown": ("test_shutdown.py", "test_shutdown_signals.py"),  # a process that a test starts does not see the fault
    "sync_channel": ("test_sync_channel.py", "test_sync_channel_shuffled.py"),
    "ticker": ("test_ticker.py", "test_lost_bodies.py"),
    "wait_group": ("test_wait_group.py", "test_wait_group_misuse.py", "test_lost_bodies.py"),
    "worker_pool": (
        "test_worker_pool.py",
        "test_worker_pool_leaving.py",
        "test_worker_pool_sizes.py",
        "test_worker_pool_property.py",
        "test_lost_bodies.py",
    ),
}
"""Which test files look at a module, the quickest first; `test_<module>.py` where nothing is said."""


def main(arguments: list[str]) -> int:
    """Judge every mutant of the files named, or of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="modules of patterns/; all of them if left out")
    parser.add_argument("--only", default="", help="only mutants whose name contains this")
    chosen = parser.parse_args(arguments)
    files = chosen.files or sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
    explained = set(_explained())
    stale: set[str] = set()
    count, survivors = 0, 0
    unexplained: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        for path in files:
            tests = _tests_of(path)
            if judge(path, _unchanged(path), tests, LIMIT_SECONDS, output) != "survived":
                _say(f"{output.read_text(encoding='utf-8')}\n{path}: its tests fail without any mutant")
                return 2
            mutants = [mutant for mutant in mutants_of(path) if chosen.only in mutant.name]
            survived = [mutant.name for mutant in mutants if _survives(path, mutant, tests, output)]
            count += len(mutants)
            survivors += len(survived)
            unexplained += [name for name in survived if name not in explained]
            of_file = {name for name in explained if name.startswith(f"{path.name} ") and chosen.only in name}
            stale |= of_file - set(survived)
    _say(f"{count} mutants, {survivors} survived, {len(unexplained)} of them unexplained")
    for name in unexplained:
        _say(f"survived, and {PAGE} does not say why: {name}")
    for name in sorted(stale):
        _say(f"{PAGE} explains a mutant that was noticed, or is no more: {name}")
    return 1 if unexplained or stale else 0


def _survives(path: Path, mutant: Mutant, tests: list[str], output: Path) -> bool:
    started = time.monotonic()
    verdict = judge(path, mutant.code, tests, LIMIT_SECONDS, output)
    _say(f"{verdict:8} {time.monotonic() - started:6.1f} s  {path}:{mutant.line} {mutant.name}")
    return verdict == "survived"


def _tests_of(path: Path) -> list[str]:
    names = TESTS_OF.get(path.stem, (f"test_{path.stem}.py",))
    return [str(TESTS / name) for name in names]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _unchanged(path: Path) -> CodeType:
    return compile(path.read_text(encoding="utf-8"), str(path), "exec")


def _explained() -> list[str]:
    """Read the names in the page's lists: what stands between doubled backquotes at the start of an entry."""
    if not PAGE.exists():
        return []
    entries = [
        line.removeprefix("- ``") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:4] == "- ``"
    ]
    return [entry.split("``:")[0].strip() for entry in entries]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
