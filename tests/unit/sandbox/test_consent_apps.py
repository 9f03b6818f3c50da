"""What members' apps refuse to be told."""

from pathlib import Path
from random import Random

import pytest

from sandbox.consent_apps import ConsentApps
from sandbox.journal import Journal


@pytest.mark.parametrize(
    "wrong",
    [{"members": ()}, {"rate": 0.0}, {"rate": -1.0}, {"documents_max": 0}, {"in_flight_max": 0}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_apps_refuse_what_makes_no_sense(tmp_path: Path, wrong: dict[str, object]) -> None:
    """Nobody to write for, no rate and no room are refused at once, by name."""
    right = {"members": ("m-1",), "rate": 1.0, "documents_max": 1, "in_flight_max": 1}
    with Journal(tmp_path) as journal, pytest.raises(ValueError, match=next(iter(wrong))):
        ConsentApps("mongodb://127.0.0.1", "consents", journal, random=Random(1), **right | wrong)  # type: ignore[arg-type] # on purpose
