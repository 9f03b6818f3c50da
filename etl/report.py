"""What a load did, for whoever started it: an exit status and a file that a program can read."""

import uuid
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

import orjson

from etl.disk import replace_file
from etl.settings import EtlSettings


class Outcome(StrEnum):
    """How a load ended, of one file or of all."""

    LOADED = "loaded"
    LOADED_WITH_REJECTS = "loaded with rejects"
    STOPPED = "stopped"
    REFUSED = "refused"
    FAILED = "failed"


EXIT_STATUS: Final = {
    Outcome.LOADED: 0,
    Outcome.FAILED: 1,
    Outcome.LOADED_WITH_REJECTS: 3,
    Outcome.REFUSED: 4,
    Outcome.STOPPED: EtlSettings.stopped_status,
}
"""Of `load`; 2 is a wrong command line, 78 are bad settings."""

_GRAVITY: Final = (
    Outcome.LOADED,
    Outcome.LOADED_WITH_REJECTS,
    Outcome.STOPPED,
    Outcome.REFUSED,
    Outcome.FAILED,
)


@dataclass(slots=True)
class FileReport:
    """What became of one file, over all tries to load it: `rows` = `inserted` + `skipped` + `rejected`.

    These are what the ledger has when the load ends, however it ends; 0 where it could not be asked.

    Attributes:
        conflicting: how many of the skipped rows found other values under their code than their own; at least one where
            there is such a code, and of several with one code perhaps not all.
        own_rows: how many rows were in the batches that this try brought to their end.
        reasons: how many rows this try rejected for which reason.
        detail: why it was not loaded whole, or nothing.
        seconds: how long this try took.
    """

    name: str
    outcome: Outcome = Outcome.FAILED
    content_sha256: str = ""
    content_bytes: int = 0
    inserted: int = 0
    skipped: int = 0
    conflicting: int = 0
    rejected: int = 0
    own_rows: int = 0
    failed_batches: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    reject_file: str | None = None
    detail: str = ""
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        """How many rows became something."""
        return self.inserted + self.skipped + self.rejected


def worst(outcomes: list[Outcome]) -> Outcome:
    """Return the gravest of some outcomes; without one, everything there was to do is done."""
    return max(outcomes, key=_GRAVITY.index, default=Outcome.LOADED)


def write_report(path: Path, reports: list[FileReport]) -> None:
    """Write what became of all files, in one step: whoever reads it sees all of it or what was there before.

    Raises:
        OSError: It cannot be written.
    """
    content = {
        "outcome": worst([report.outcome for report in reports]),
        "files": [{"rows": report.rows} | {name: getattr(report, name) for name in _FIELDS} for report in reports],
    }
    written = orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    replace_file(path, [written], own_name=f".{uuid.uuid4().hex}")  # several processes may be given one path


_FIELDS: Final = tuple(name for name in FileReport.__dataclass_fields__)
