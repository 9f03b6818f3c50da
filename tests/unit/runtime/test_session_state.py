"""No statement of ours leaves session state behind: the pool sends no reset query that would take it back."""

import ast
import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_SOURCES = sorted(path for folder in ("services", "runtime", "etl") for path in (_ROOT / folder).rglob("*.py"))
_LEAVES_STATE = re.compile(
    r"""(?isx)
    (?:^|;)\s*set\s+(?!local\b|transaction\b)\w
    | (?:^|;)\s*(?:un)?listen\s+\w+\s*(?:;|$)
    | \bpg_(?:try_)?advisory_lock(?:_shared)?\s*\(
    | (?:^|;)\s*prepare\s+\w
    | \bcreate\s+temp(?:orary)?\s+table(?!.*on\s+commit\s+drop)
    | \bdeclare\s.*\swith\s+hold\b
    """
)


def texts(source: str) -> list[tuple[int, str]]:
    """Return the strings of a source with their lines, without docstrings."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "set work_mem = '1MB'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "listen coupons",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_lock_shared(1)",
        "create temporary table t (x int)",
        "declare c cursor with hold for select 1",
        "prepare p as select 1",
    ],
)
def test_the_guard_sees_what_leaves_session_state(statement: str) -> None:
    """Each kind of statement that outlives its transaction is found."""
    assert _LEAVES_STATE.search(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "set local work_mem = '1MB'",
        "set transaction read only",
        "update t set x = 1",
        "select pg_advisory_xact_lock(1)",
        "select pg_try_advisory_xact_lock(1)",
        "create temp table t (x int) on commit drop",
    ],
)
def test_the_guard_lets_through_what_ends_with_its_transaction(statement: str) -> None:
    """Nothing that is bound to a transaction is taken for session state."""
    assert not _LEAVES_STATE.search(statement)


def test_no_statement_in_the_sources_leaves_session_state() -> None:
    """Every source file of the services and of runtime passes the guard."""
    assert len(_SOURCES) > 20
    found = [
        f"{path.relative_to(_ROOT)}:{line}: {text}"
        for path in _SOURCES
        if "migrations" not in path.parts
        for line, text in texts(path.read_text("utf-8"))
        if _LEAVES_STATE.search(text)
    ]
    assert not found
