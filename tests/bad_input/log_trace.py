"""Read a service's log as somebody would who fears that input got into it."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from tests.bad_input.http_row import CANARY

_UNSEEN: Final = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xef\xbb\xbf")
_KNOWN: Final = frozenset({"timestamp", "level", "service", "instance", "event"})


def faults_in(log: bytes) -> Iterator[str]:
    """Yield what a log must not hold: a line that is no event of ours, a byte nobody sees, a word of the input."""
    for line in log.splitlines(keepends=True):
        if _UNSEEN.search(line):
            yield f"a byte that nobody sees: {line!r}"
        if CANARY.encode() in line.lower():
            yield f"input: {line!r}"
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError:
            yield f"no JSON: {line!r}"
        else:
            if not line.endswith(b"\n") or not isinstance(fields, dict) or not fields.keys() >= _KNOWN:
                yield f"no event of ours: {line!r}"


def answers_in(lines: list[Mapping[str, Any]]) -> Counter[tuple[str, int]]:
    """Return how often the log tells of an answer, by the request's id and the status."""
    return Counter((line["request_id"], line["status"]) for line in lines if "status" in line and line["request_id"])
