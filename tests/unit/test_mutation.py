"""The mutation run: which faults it makes of a module, and that it says what became of them."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.mutation.mutant import mutants_of


def names(folder: Path, source: str) -> list[str]:
    """The names of all mutants of a module."""
    path = folder / "module.py"
    path.write_text(dedent(source), encoding="utf-8")
    return [mutant.name.removeprefix("module.py ") for mutant in mutants_of(path)]


def test_each_mutant_differs_in_one_place(tmp_path: Path) -> None:
    """Statements, conditions, operators and constants of a method are changed one by one; the rest is left."""
    source = '''
        """Text."""
        LIMIT = 128

        class Counter:
            """Text."""
            step: int = 1

            def add(self, n: int = 0) -> bool:
                """Text."""
                if n < LIMIT and self.value:
                    self.value += n
                    self.notify()
                return n is None
    '''
    assert names(tmp_path, source) == [
        "Counter.add: `0` -> `1`",
        "Counter.add: `n < LIMIT and self.value` negated",
        "Counter.add: `n < LIMIT and self.value` -> `n < LIMIT or self.value`",
        "Counter.add: `n < LIMIT` -> `n <= LIMIT`",
        "Counter.add: `n < LIMIT` -> `n >= LIMIT`",
        "Counter.add: `self.value += n` left out",
        "Counter.add: `self.value += n` -> `self.value -= n`",
        "Counter.add: `self.notify()` left out",
        "Counter.add: `return n is None` -> `return None`",
        "Counter.add: `n is None` -> `n is not None`",
    ]


def test_mutants_of_the_same_text_are_told_apart(tmp_path: Path) -> None:
    """The second one of a function is named as such."""
    assert names(tmp_path, "def f():\n    g()\n    g()\n") == ["f: `g()` left out", "f: `g()` left out (2)"]


def test_code_of_a_mutant_does_what_its_name_says(tmp_path: Path) -> None:
    """It is the module with that one change, and the next one is made of the unchanged module."""
    path = tmp_path / "module.py"
    path.write_text("def f(a):\n    return not a + 1\n", encoding="utf-8")
    results = {}
    for mutant in mutants_of(path):
        namespace: dict[str, object] = {}
        exec(mutant.code, namespace)  # noqa: S102  # what a mutant is for
        function = namespace["f"]
        assert callable(function)
        results[mutant.name.split(": ")[1]] = function(1)
    assert results == {
        "`return not a + 1` -> `return None`": None,
        "`not a + 1` -> `a + 1`": 2,
        "`a + 1` -> `a - 1`": True,
        "`1` -> `2`": False,
    }


@pytest.mark.thorough
@pytest.mark.timeout(120)
def test_run_over_a_module_ends_well_when_all_its_mutants_are_noticed() -> None:
    """Each mutant of a small module is reported, and a run without an unexplained survivor has status 0."""
    command = [sys.executable, "-m", "tests.mutation", "patterns/atomic.py", "--only", "AtomicCounter.swap"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "killed" in run.stdout
    assert "0 of them unexplained" in run.stdout
