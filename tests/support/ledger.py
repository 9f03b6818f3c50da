"""The ledger of a run under faults: what a driver attempted and what was acknowledged, against what is stored.

Every unit of work has an id and a content. The driver appends to two files, flushed before use: `attempted` before it
asks, `acknowledged` when it has the answer. After the run and a quiet time they are held against what is stored.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeAlias

from tests.support.judgement import Judgement, Rule

Unit: TypeAlias = tuple[str, str]  # an id, and the digest of its content


def digest(content: object) -> str:
    """Return the hash of a content: anything that JSON can hold, or whose text tells it apart (a UUID, a time)."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


class Ledger:
    """The two files of a driver, open inside `with`: a line has been handed to the kernel before a call returns."""

    def __init__(self, directory: Path) -> None:
        self._paths = (directory / "attempted.jsonl", directory / "acknowledged.jsonl")
        self._files: list[IO[str]] = []

    def __enter__(self) -> Self:
        self._files = [path.open("a", encoding="utf-8") for path in self._paths]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._files:
            file.close()

    def attempt(self, unit_id: str, content: object) -> None:
        """Write down what is about to be asked for."""
        self._append(0, unit_id, content)

    def acknowledge(self, unit_id: str, content: object) -> None:
        """Write down what was promised."""
        self._append(1, unit_id, content)

    def judge(self, stored: Iterable[tuple[str, object]], *, dead: Iterable[str] = ()) -> Judgement:
        """Hold the files against what is stored, once for each time, and the ids among the dead letters (L1 to L4)."""
        attempted, acknowledged = (list(_read(path)) for path in self._paths)
        units = [(unit_id, digest(content)) for unit_id, content in stored]
        return judge_units(attempted, acknowledged, units, dead=dead)

    def _append(self, which: int, unit_id: str, content: object) -> None:
        self._files[which].write(json.dumps([unit_id, digest(content)]) + "\n")
        self._files[which].flush()


def judge_units(
    attempted: Iterable[Unit], acknowledged: Iterable[Unit], stored: Iterable[Unit], *, dead: Iterable[str] = ()
) -> Judgement:
    """Hold what was attempted and acknowledged, each in its order, against what is stored (L1 to L4).

    An attempt without an answer may have had its effect or not, so its content is right, and so is the one before.
    """
    asked = _by_id(attempted)
    promised = dict(acknowledged)
    held = _by_id(stored)
    aside = set(dead)
    wrong = (
        one for one, found in held.items() if one in asked and found[-1] not in _right(asked[one], promised.get(one))
    )
    doubled = (one for one, found in held.items() if len(found) > 1 or one in aside)
    return Judgement(
        {
            Rule.NOTHING_LOST: tuple(
                f"{one} was acknowledged and is nowhere" for one in sorted(promised.keys() - held.keys() - aside)
            ),
            Rule.NOTHING_DOUBLED: tuple(
                f"{one} is stored {len(held[one])} times{', and a dead letter' if one in aside else ''}"
                for one in doubled
            ),
            Rule.NOTHING_INVENTED: tuple(
                f"{one} is there and nobody asked for it" for one in sorted((held.keys() | aside) - asked.keys())
            ),
            Rule.RIGHT_CONTENT: tuple(f"{one} has another content than was acknowledged" for one in wrong),
        }
    )


def _by_id(units: Iterable[Unit]) -> dict[str, list[str]]:
    contents: defaultdict[str, list[str]] = defaultdict(list)
    for unit_id, content in units:
        contents[unit_id].append(content)
    return dict(contents)


def _right(asked: Sequence[str], promised: str | None) -> set[str]:
    """Return what may be stored: the version that was promised last, or one that was asked for after it."""
    if promised is None:
        return set(asked)
    later = len(asked) - 1 - asked[::-1].index(promised) if promised in asked else len(asked) - 1
    return {promised, *asked[later + 1 :]}


def _read(path: Path) -> Iterator[Unit]:
    for line in path.read_text("utf-8").splitlines():
        unit_id, content = json.loads(line)
        yield unit_id, content
