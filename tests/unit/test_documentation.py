"""The Python blocks of README.md and docs/ run as they stand: those of one page in order, in one namespace."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[tuple[int, str]]:
    """Return the page's Python blocks, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, block.start(1)) + 1, block.group(1)) for block in BLOCK.finditer(text)]


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if page.exists()]
PAGES_WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]


@pytest.mark.parametrize("page", PAGES_WITH_BLOCKS, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_of_a_page_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of the page runs to its end, with what the blocks above it have defined."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for first_line, source in blocks_of(page):
        code = compile("\n" * (first_line - 1) + source, str(page), "exec")
        exec(code, module.__dict__)  # noqa: S102  # our own documentation


def test_every_pattern_has_its_page_with_both_languages() -> None:
    """Each public module of patterns/ has a page that shows Go and runs Python."""
    modules = {file.stem for file in (ROOT / "patterns").glob("*.py")} - {"__init__", "errors", "sync_channel"}
    for module in sorted(name for name in modules if not name.startswith("_")):
        page = ROOT / "docs" / "patterns" / f"{module}.md"
        assert page in PAGES_WITH_BLOCKS, f"{page} has no Python block, or does not exist"
        assert "```go" in page.read_text(encoding="utf-8"), f"{page} shows no Go"
