"""What a run under faults is judged by, and what was found.

- L1 nothing lost: what was acknowledged is stored or among the dead letters.
- L2 nothing doubled: each id is stored once.
- L3 nothing invented: what is stored was attempted.
- L4 right content: what is stored is the last acknowledged version of its id.
- L5 progress saved: stored offsets, tokens and file ledgers are at the end of what was done.
- L6 no leak: descriptors, threads, database connections and memory are back at their idle level.
- L7 time: stopping took no longer than its budget, coming back no longer than its limit.
- L8 the exit status and the last log line are what was asked for.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Rule(StrEnum):
    """What a run is judged by."""

    NOTHING_LOST = "L1"
    NOTHING_DOUBLED = "L2"
    NOTHING_INVENTED = "L3"
    RIGHT_CONTENT = "L4"
    PROGRESS_SAVED = "L5"
    NO_LEAK = "L6"
    IN_TIME = "L7"
    RIGHT_END = "L8"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found: for each rule that was looked at its differences, none where it holds."""

    differences: Mapping[Rule, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        """Whether some rule was looked at and nothing differs."""
        return bool(self.differences) and not any(self.differences.values())

    def failed(self, *rules: Rule) -> bool:
        """Whether at least one of these rules was looked at and does not hold."""
        return any(self.differences.get(rule) for rule in rules)

    def __or__(self, other: "Judgement") -> "Judgement":
        """Put two judgements together; where both looked at a rule, the differences of both count."""
        looked_at = self.differences.keys() | other.differences.keys()
        return Judgement(
            {
                rule: (*self.differences.get(rule, ()), *other.differences.get(rule, ()))
                for rule in Rule
                if rule in looked_at
            }
        )

    def marks(self) -> list[str]:
        """Return a word for each of the eight rules: `ok`, `FAILED`, or `-` for one that was not looked at."""
        return ["-" if rule not in self.differences else "FAILED" if self.failed(rule) else "ok" for rule in Rule]

    def __str__(self) -> str:
        """Show the differences, or say what was looked at."""
        lines = [f"{rule}: {one}" for rule, found in self.differences.items() for one in found]
        return "\n".join(lines) or f"no difference; looked at: {', '.join(self.differences) or 'nothing'}"


def judge(rule: Rule, differences: Iterable[str] = ()) -> Judgement:
    """Return the judgement of one rule."""
    return Judgement({rule: tuple(differences)})


def judge_progress(expected: Mapping[str, object], found: Mapping[str, object]) -> Judgement:
    """Compare how far everything should have come with how far it says it came (L5), by the name of each."""
    return judge(
        Rule.PROGRESS_SAVED,
        (
            f"{name} stands at {found.get(name)} instead of {expected.get(name)}"
            for name in sorted(expected.keys() | found.keys())
            if expected.get(name) != found.get(name)
        ),
    )


def judge_time(what: str, seconds: float, *, at_most: float) -> Judgement:
    """Compare how long something took with its limit (L7)."""
    return judge(Rule.IN_TIME, [f"{what} took {seconds:.1f} s, more than {at_most:g} s"] if seconds > at_most else [])


def judge_end(name: str, status: int, last_event: str, *, wanted: tuple[int, str]) -> Judgement:
    """Compare how a process ended, by its status and what its last log line says, with what was asked for (L8)."""
    found = (status, last_event)
    return judge(Rule.RIGHT_END, [f"{name} ended with {found} instead of {wanted}"] if found != wanted else [])
