"""Members who redeem at a steady rate, whatever becomes of their requests, and write down what they were promised."""

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import httpx

from patterns import ErrorGroup
from runtime.auth import sign_token
from sandbox.http_client import HttpClient
from tests.support.eventually import eventually
from tests.support.ledger import Ledger
from tests.support.service_process import SECRET, HttpServiceProcess
from tests.support.shop import MEMBERS, REWARDS

KNOWN: Final = frozenset(
    {"201", "409 request-in-progress", "503 dependency-unavailable", "503 overloaded", "504 deadline-exceeded"}
)
"""What a member may be answered whatever happens to the database: an order, or to come again."""
_PATIENCE_SECONDS: Final = 120.0
_REQUEST_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.2
_PAUSE_MOST_SECONDS: Final = 4.0


class Redeemers:
    """See `open_redeemers`.

    Attributes:
        ledger: what was attempted and acknowledged, by member and key.
        told: the redemption that each acknowledged order was answered with.
        answers: how often each answer was given, a lost request by its error's class.
        slowest_seconds: how long the slowest answer took.
    """

    def __init__(self, service: HttpServiceProcess, ledger: Ledger, *, rate: float) -> None:
        self.ledger = ledger
        self.told: dict[str, str] = {}
        self.answers: Counter[str] = Counter()
        self.slowest_seconds = 0.0
        self._rate = rate
        self._number = 0
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._client = HttpClient()
        self._url = f"http://127.0.0.1:{service.port}/v1/redemptions"
        self._tokens = {one: f"Bearer {sign_token(one, 'member', SECRET)}" for one in MEMBERS}
        self._task = asyncio.create_task(self._run(), name="redeemers")

    @property
    def strange(self) -> set[str]:
        """The answers that nobody may ever be given; a 503 has to say when to come again."""
        return set(self.answers) - KNOWN

    def shown(self) -> str:
        """Return the answers and how often each was given, in one line."""
        return ", ".join(f"{count} x {answer}" for answer, count in sorted(self.answers.items()))

    async def wait_told(self, more: int = 1, *, seconds: float = 60) -> float:
        """Wait until so many more orders have been acknowledged; return how many seconds it took."""
        began, wanted = self._loop.time(), len(self.told) + more
        await eventually(lambda: self._has_told(wanted), seconds=seconds)
        return self._loop.time() - began

    async def wait_answers(self, *answers: str, seconds: float = 60) -> None:
        """Wait until at least one of these answers has been given since now."""
        before = sum(self.answers[one] for one in answers)
        await eventually(lambda: self._has_answered(before, answers), seconds=seconds)

    async def finish(self) -> None:
        """Begin no more orders, and wait until each has been acknowledged."""
        self._is_over = True
        await self._task
        await self._client.aclose()

    async def aclose(self) -> None:
        """End at once, whatever is under way."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.exception()  # whoever waited for something was told already
        await self._client.aclose()

    def _has_told(self, wanted: int) -> bool:
        self._raise_failure()
        return len(self.told) >= wanted

    def _has_answered(self, before: int, answers: tuple[str, ...]) -> bool:
        self._raise_failure()
        return sum(self.answers[one] for one in answers) > before

    def _raise_failure(self) -> None:
        if self._task.done():
            self._task.result()

    async def _run(self) -> None:
        async with ErrorGroup() as orders:
            due = self._loop.time()
            while not self._is_over:
                self._number += 1
                await orders.go(self._order, self._number)
                due = max(due + 1 / self._rate, self._loop.time() - 1)  # what was late is caught up with, to a bound
                await asyncio.sleep(max(0.0, due - self._loop.time()))

    async def _order(self, number: int) -> None:
        """Order once, and ask again under the same key until there is an answer."""
        member, reward = MEMBERS[number % len(MEMBERS)], REWARDS[number % len(REWARDS)]
        key = f"order-{number:06}"
        self.ledger.attempt(f"{member}/{key}", [member, reward])
        pause = _PAUSE_SECONDS
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not await self._try(member, reward, key):
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, _PAUSE_MOST_SECONDS)

    async def _try(self, member: str, reward: str, key: str) -> bool:
        headers = {
            "authorization": self._tokens[member],
            "content-type": "application/json",
            "idempotency-key": key,
        }
        content = json.dumps({"reward_id": reward}).encode()
        began = self._loop.time()
        try:
            answer = await self._client.request(
                "POST", self._url, headers=headers, content=content, timeout=_REQUEST_SECONDS
            )
        except (httpx.HTTPError, TimeoutError) as error:
            self.answers[type(error).__name__] += 1
            return False
        self.slowest_seconds = max(self.slowest_seconds, self._loop.time() - began)
        self.answers[outcome(answer)] += 1
        if answer.status_code != httpx.codes.CREATED:
            return False
        self.ledger.acknowledge(f"{member}/{key}", [member, reward])
        self.told[f"{member}/{key}"] = answer.json()["redemption_id"]
        return True


def outcome(answer: httpx.Response) -> str:
    """Return an answer's status with the problem's code, and say so when a 503 does not tell when to come again."""
    text = f"{answer.status_code} {answer.json()['code']}" if answer.is_error else str(answer.status_code)
    is_lacking = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE and "retry-after" not in answer.headers
    return f"{text} without Retry-After" if is_lacking else text


@contextlib.asynccontextmanager
async def open_redeemers(
    service: HttpServiceProcess, directory: Path, *, rate: float = 10.0
) -> AsyncIterator[Redeemers]:
    """Let members redeem at a service, so many orders a second; the ledger is in the directory.

    Each order has an idempotency key of its own and is repeated under it until it is acknowledged, with pauses that
    grow. Leaving ends what is under way; `Redeemers.finish` waits for it.
    """
    with Ledger(directory) as ledger:
        redeemers = Redeemers(service, ledger, rate=rate)
        try:
            yield redeemers
        finally:
            await redeemers.aclose()
