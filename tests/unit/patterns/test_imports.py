"""The package stands on the standard library alone."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import patterns

PACKAGE = Path(patterns.__file__).parent
FILES = sorted(PACKAGE.glob("**/*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_imports_the_standard_library_alone(file: Path) -> None:
    """Every import statement of the file, also one inside a function, names a standard module or this package."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            imported.add(str(node.module).split(".")[0])
    assert imported <= sys.stdlib_module_names | {"patterns"}


def test_package_imports_without_any_installed_package() -> None:
    """An interpreter without site-packages imports every module and gets every exported name."""
    modules = [f"patterns.{file.stem}" for file in FILES if file.stem != "__init__"]
    program = (
        f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); import {', '.join(modules)}; from patterns import *"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, timeout=30)


def test_every_export_exists_and_is_listed_once() -> None:
    """The list of exports is true: sorted out by name, without doubles, each name there."""
    assert len(set(patterns.__all__)) == len(patterns.__all__)
    assert [name for name in patterns.__all__ if not hasattr(patterns, name)] == []
