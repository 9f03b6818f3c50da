"""Small faults, each put into a module's syntax tree by itself: what a test suite worth its name notices."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Final, NamedTuple, TypeVar

_Node = TypeVar("_Node", bound=ast.AST)
_Function = ast.FunctionDef | ast.AsyncFunctionDef

_COMPARISONS: Final[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),  # the bound, and the opposite
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd,
}
_LONGEST_TEXT: Final = 90


@dataclass(frozen=True)
class Mutant:
    """One changed module: what was changed where, and its code."""

    name: str
    """The same as long as the changed line and its function stay the same, wherever in the file they are."""
    line: int
    code: CodeType


class _Spot(NamedTuple):
    """Where a node hangs in its tree: in a field of its owner, and at which position if that is a list."""

    owner: ast.AST
    field: str
    position: int | None

    def put(self, node: ast.AST) -> None:
        """Hang another node there."""
        if self.position is None:
            setattr(self.owner, self.field, node)
        else:
            getattr(self.owner, self.field)[self.position] = node


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Change one thing after the other in the functions of a module: each mutant differs from it in one place."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    seen: Counter[str] = Counter()
    for scope, spot, node in _walk(tree, "", is_run=False):
        for changed, text in _alternatives(node):
            spot.put(ast.fix_missing_locations(ast.copy_location(changed, node)))
            name = f"{path.name} {scope}: {text}"
            seen[name] += 1
            suffix = f" ({seen[name]})" if seen[name] > 1 else ""
            yield Mutant(name + suffix, getattr(node, "lineno", 0), compile(tree, str(path), "exec"))
            spot.put(node)


def _walk(owner: ast.AST, scope: str, *, is_run: bool) -> Iterator[tuple[str, _Spot, ast.AST]]:
    """Walk what runs when functions are called, and their defaults; not annotations, decorators and docstrings."""
    for field, value in ast.iter_fields(owner):
        if field in ("annotation", "returns", "decorator_list"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or _is_docstring(node):
                continue
            if is_run:
                yield scope, _Spot(owner, field, index if isinstance(value, list) else None), node
            is_named = isinstance(node, _Function | ast.ClassDef)
            inner = ".".join(filter(None, (scope, node.name))) if isinstance(node, _Function | ast.ClassDef) else scope
            yield from _walk(node, inner, is_run=is_run or isinstance(node, _Function) if is_named else is_run)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _alternatives(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    if isinstance(node, ast.stmt):
        yield from _without(node)
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not _is_turned_below(node.test):
        changed = _copy(node, test=ast.UnaryOp(ast.Not(), node.test))
        yield changed, f"`{_text(node.test)}` negated"
    yield from ((changed, f"`{_text(node)}` -> `{_text(changed)}`") for changed in _other_values(node))


def _is_turned_below(test: ast.expr) -> bool:
    """Say whether the change of a part of this condition turns all of it round."""
    match test:
        case ast.Compare(ops=[_]) | ast.UnaryOp(op=ast.Not()) | ast.Constant():
            return True
        case _:
            return False


def _without(node: ast.stmt) -> Iterator[tuple[ast.stmt, str]]:
    """Leave a statement out, or the value of a return."""
    match node:
        case ast.Return(value=ast.Constant(value=None | bool())):
            return  # None is nothing else, and a truth is turned round by itself
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None)), f"`{_text(node)}` -> `return None`"
        case ast.Expr() | ast.AugAssign() | ast.Delete() | ast.Raise() | ast.Break() | ast.Continue() | ast.Return():
            yield ast.Pass(), f"`{_text(node)}` left out"
        case (
            ast.Assign(targets=[ast.Attribute() | ast.Subscript() | ast.Tuple()])
            | ast.AnnAssign(target=ast.Attribute(), value=ast.expr())
        ):
            yield ast.Pass(), f"`{_text(node)}` left out"


def _other_values(node: ast.AST) -> Iterator[ast.expr | ast.AugAssign]:
    match node:
        case ast.Compare(ops=[operator]):
            for other in _COMPARISONS[type(operator)]:
                yield _copy(node, ops=[other()])
        case ast.BoolOp(op=ast.And()):
            yield _copy(node, op=ast.Or())
        case ast.BoolOp(op=ast.Or()):
            yield _copy(node, op=ast.And())
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.BinOp() | ast.AugAssign() if type(node.op) in _OPERATORS:
            yield _copy(node, op=_OPERATORS[type(node.op)]())
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)


def _copy(node: _Node, **changes: object) -> _Node:
    fields = dict(ast.iter_fields(node)) | changes
    return type(node)(**fields)


def _text(node: ast.AST) -> str:
    text = ast.unparse(node).splitlines()[0]
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
