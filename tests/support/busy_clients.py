"""Keep-alive clients that never rest, and that tell every way in which a server can let one down."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tests.support.eventually import eventually
from tests.support.judgement import Judgement, Rule, judge
from tests.support.raw_http import RawClient

Address = tuple[str, int]


class BusyClients:
    """Send GETs over `count` keep-alive connections, each its next one as soon as it has an answer.

    A client whose answer said `Connection: close`, or whose idle connection the server closed before it sent anything
    more, connects anew. Whatever else goes wrong is an error, counted by its kind; nothing is ever sent twice.
    """

    def __init__(
        self,
        address: Address,
        count: int,
        *,
        path: str = "/ok",
        headers: Mapping[str, str] | None = None,
        pause_seconds: float = 0.0,
    ) -> None:
        self._address = address
        self._path = path
        self._headers = dict(headers or {})
        self._count = count
        self._pause_seconds = pause_seconds
        self._is_stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        self._number = 0
        self._unanswered: dict[int, str] = {}
        self.errors: Counter[str] = Counter()
        self.answers = 0
        self.closing_answers = 0
        self.slowest_seconds = 0.0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._live()) for _ in range(self._count)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopping = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 30)

    async def wait_answers(self, more: int) -> None:
        """Wait until so many more answers have come."""
        wanted = self.answers + more
        await eventually(lambda: self.answers >= wanted, seconds=20)

    def judge(self) -> Judgement:
        """Judge, by the numbers of the requests, that each had its answer with status 200 (L1); after leaving."""
        lost = (f"request {number} was lost: {why}" for number, why in self._unanswered.items())
        return judge(Rule.NOTHING_LOST, lost)

    async def _live(self) -> None:
        while not self._is_stopping:
            try:
                await self._use_one_connection()
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                self.errors[type(error).__name__] += 1
                await asyncio.sleep(0.01)

    async def _use_one_connection(self) -> None:
        async with RawClient(self._address) as client:
            while not self._is_stopping and not client.reader.at_eof():
                began = time.perf_counter()
                self._number += 1
                number, self._unanswered[self._number] = self._number, "no answer"
                answer = await client.get(self._path, **self._headers)
                self.slowest_seconds = max(self.slowest_seconds, time.perf_counter() - began)
                self.answers += 1
                if answer.status == 200:
                    del self._unanswered[number]
                else:
                    self._unanswered[number] = f"status {answer.status}"
                    self.errors[f"status {answer.status}"] += 1
                if answer.closes:
                    self.closing_answers += 1
                    return
                if self._pause_seconds:
                    await asyncio.sleep(self._pause_seconds)
