"""The page of faults is whole: a row that was left out of the run that wrote it is missed here."""

import pytest

from tests.support.fault_table import FAULTS, PAGE


def test_every_fault_is_on_the_page(request: pytest.FixtureRequest) -> None:
    """Each test that is a row has its line in docs/faults.md; `make faults` writes it anew."""
    page = PAGE.read_text("utf-8")
    found = request.config.stash[FAULTS]
    assert [(row, injected) for row, injected in sorted(found) if f"\n| {row} | {injected} | " not in page] == []
