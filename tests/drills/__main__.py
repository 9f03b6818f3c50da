"""Show what each policy does with a resume token that no longer works: `make drill-lost-token`.

Two scenes, each on a MongoDB of its own: a consumer that was away for longer than the oplog reaches back, and one that
was held up for as long. What happens is told as it happens, the service's own words among it. The last line is
`drill ok: ...` with status 0 when each policy did what docs/operations.md says, or `drill FAILED: ...` with status 1.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Final

from runtime.command import EXIT_FAILED, EXIT_OK
from sandbox.servers import ServerError
from tests.drills.lost_token import away_too_long, read_too_slowly
from tests.support.judgement import Judgement, Rule

_SCENES: Final = {
    "the consumer was away for longer than the oplog reaches back": away_too_long,
    "the consumer was held up for longer than the oplog reaches back": read_too_slowly,
}


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what this command is for


async def _run() -> Judgement:
    judgement = Judgement()
    for title, scene in _SCENES.items():
        _tell(f"\n{title}")
        with tempfile.TemporaryDirectory(prefix="drill-") as directory:
            judgement |= await scene(Path(directory), _tell)
    return judgement


def main() -> int:
    """Run the drill and return its exit status."""
    try:
        judgement = asyncio.run(_run())
    except (AssertionError, ServerError, TimeoutError, OSError) as error:
        notes = "".join(f"\n{note}" for note in getattr(error, "__notes__", ()))
        _tell(f"drill FAILED: {type(error).__name__}: {error}{notes}")
        return EXIT_FAILED
    rules = ", ".join(f"{rule} {mark}" for rule, mark in zip(Rule, judgement.marks(), strict=True) if mark != "-")
    if not judgement.is_ok:
        _tell(f"{judgement}\ndrill FAILED: {rules}")
        return EXIT_FAILED
    _tell(f"\ndrill ok: every policy did what it says; {rules}")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
