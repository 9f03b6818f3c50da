"""A client of the control interface, for the demo, the audit and tests that run the sandbox as a process."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlencode

import orjson

from sandbox.http_client import HttpClient
from sandbox.salesforce.applied_log import Applied, Content, read_call
from sandbox.salesforce.errors import ControlError
from sandbox.salesforce.fault import Fault, read_fault
from sandbox.salesforce.records import Record

_TIMEOUT_SECONDS: Final = 10.0
_PAGE_CALLS = 100
_PAGE_RECORDS = 1_000


@dataclass(frozen=True, slots=True)
class ControlCounts:
    """What the sandbox told of itself; see `Counts`, and besides how many records each object has.

    Attributes:
        token: requests for a token by outcome.
        upsert: calls that upsert by outcome.
        query: calls for a page of a query by outcome.
        tokens_issued: how many tokens were made.
        created: records.
        updated: records, replays among them.
        refused: records by status code.
        records: how many there are of each object, what earlier processes applied included.
        calls_per_second: the limit; None where there is none.
    """

    token: Mapping[str, int]
    upsert: Mapping[str, int]
    query: Mapping[str, int]
    tokens_issued: int
    created: int
    updated: int
    refused: Mapping[str, int]
    records: Mapping[str, int]
    calls_per_second: float | None


class SalesforceControl:
    """Tell the sandbox what to do wrong, and ask it what it holds: `async with SalesforceControl(url) as control`.

    Every method sends requests of at most 10 s each, and raises what follows; none is sent a second time.

    Args:
        url: the sandbox's, without a slash at the end.
        secret: opens the control interface, where it has a secret.

    Raises:
        ControlError: the sandbox refused a request, and its message says why.
        httpx.ConnectError: nobody listens.
        httpx.ReadError: the connection broke.
        TimeoutError: no answer came in time.
    """

    def __init__(self, url: str, secret: str | None = None) -> None:
        self._url = url
        self._headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
        self._client = HttpClient()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def records(self, object_type: str) -> AsyncIterator[Record]:
        """Yield the records of an object, in the order of their creation; those made meanwhile come too."""
        after: int | None = 0
        while after is not None:
            query = {"object_type": object_type, "after": after, "limit": _PAGE_RECORDS}
            page = await self._ask("GET", f"records?{urlencode(query)}")
            for record in page["records"]:
                yield Record(record["id"], record["fields"])
            after = page["next"]

    async def record(self, object_type: str, external_id: str) -> Record | None:
        """Return one record; None where there is none."""
        query = {"object_type": object_type, "external_id": external_id}
        page = await self._ask("GET", f"records?{urlencode(query)}")
        return next((Record(record["id"], record["fields"]) for record in page["records"]), None)

    async def applied(self, after: int = 0) -> AsyncIterator[Applied]:
        """Yield what was applied, in order.

        Args:
            after: a call's number; what it and those before it applied is left out.
        """
        following: int | None = after
        while following is not None:
            query = {"after": following, "limit": _PAGE_CALLS}
            page = await self._ask("GET", f"applied?{urlencode(query)}")
            for call in page["calls"]:
                for entry in read_call(call):
                    yield entry
            following = page["next"]

    async def counts(self) -> ControlCounts:
        """Return what it was asked, and what it did."""
        return ControlCounts(**await self._ask("GET", "counts"))

    async def faults(self) -> dict[int, Fault]:
        """Return the faults that are switched on, by their numbers."""
        listed = await self._ask("GET", "faults")
        return {one["id"]: read_fault(orjson.dumps(one["fault"])) for one in listed["faults"]}

    async def switch_on(self, fault: Fault) -> int:
        """Switch a fault on and return its number."""
        number: int = (await self._ask("POST", "faults", dataclasses.asdict(fault)))["id"]
        return number

    async def switch_off(self, number: int) -> None:
        """Switch a fault off; one that has had all its calls is off by itself, and refused here."""
        await self._ask("DELETE", f"faults/{number}")

    async def clear(self) -> None:
        """Switch all faults off."""
        await self._ask("DELETE", "faults")

    async def revoke_tokens(self) -> None:
        """Make all tokens of now invalid."""
        await self._ask("DELETE", "tokens")

    async def limit_calls(self, calls_per_second: float | None) -> None:
        """Set the limit on calls a second; None for no limit."""
        await self._ask("PUT", "rate", {"calls_per_second": calls_per_second})

    async def _ask(self, method: str, path: str, content: Content | None = None) -> Content:
        headers = self._headers if content is None else {**self._headers, "content-type": "application/json"}
        response = await self._client.request(
            method,
            f"{self._url}/control/{path}",
            headers=headers,
            content=None if content is None else orjson.dumps(content),
            timeout=_TIMEOUT_SECONDS,
        )
        answer: Content = orjson.loads(response.content)
        if response.is_error:
            raise ControlError(answer["error"])
        return answer
