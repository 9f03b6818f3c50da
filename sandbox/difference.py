"""How the audit's books say what differs: one sentence a fact."""

from collections.abc import Iterator, Mapping


def unequal(name: str, facts: Mapping[str, tuple[object, ...]]) -> Iterator[str]:
    """Yield a difference for each fact that is not the same everywhere: what is held first, what was right last."""
    for fact, values in facts.items():
        if any(value != values[0] for value in values[1:]):
            yield f"{name} has the {fact} {values[0]} instead of {values[-1]}"


def tally(name: str, expected: Mapping[str, int], found: Mapping[str, int]) -> Iterator[str]:
    """Yield a difference for each number that is not as expected, or that only one side has."""
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            yield f"{name} {key} are {found.get(key)} instead of {expected.get(key)}"
