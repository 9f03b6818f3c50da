"""What the sandbox has been asked, and what it has done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sandbox.salesforce.fault import Endpoint
from sandbox.salesforce.records import Result


@dataclass(slots=True)
class Counts:
    """Counts since the start of the process; nothing of it outlives the process.

    Attributes:
        token: requests for a token by outcome: the status of the answer, or the kind of a fault that left none.
        upsert: calls that upsert, likewise.
        query: calls for a page of a query, likewise.
        tokens_issued: how many tokens were made.
        created: records.
        updated: records, replays among them.
        refused: records by status code.
    """

    token: Counter[str] = field(default_factory=Counter)
    upsert: Counter[str] = field(default_factory=Counter)
    query: Counter[str] = field(default_factory=Counter)
    tokens_issued: int = 0
    created: int = 0
    updated: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def count_call(self, endpoint: Endpoint, outcome: str) -> None:
        """Note how a call ended."""
        match endpoint:
            case Endpoint.TOKEN:
                self.token[outcome] += 1
            case Endpoint.UPSERT:
                self.upsert[outcome] += 1
            case Endpoint.QUERY:
                self.query[outcome] += 1

    def count_records(self, results: Iterable[Result]) -> None:
        """Note what became of the records of a call."""
        for result in results:
            if result.errors:
                self.refused[result.errors[0].status_code] += 1
            elif result.is_created:
                self.created += 1
            else:
                self.updated += 1
