"""Members' traffic: an open loop by the published mix, written down as it goes."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import httpx
import orjson

from patterns import Context, ErrorGroup, receive, select
from sandbox.balancer import RequestFailed
from sandbox.instance import Service
from sandbox.journal import Acknowledgement, Attempt, Journal, Operation, Seed
from sandbox.mix import Held, Members, Request

_TRIES = 8
_PAUSE_SECONDS = 0.1
_PAUSE_MAX_SECONDS = 2.0
_LATENCIES = 2_000
_CHANGES = (Operation.REDEEM_REWARD, Operation.REDEEM_COUPON, Operation.CANCEL_REDEMPTION)


class Sender(Protocol):
    """What the traffic needs of a balancer."""

    async def send(
        self, method: str, path: str, *, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx.Response:
        """Send a request once and return its answer, or raise RequestFailed."""


@dataclass(frozen=True, slots=True)
class TrafficStatistics:
    """What the members asked for and got.

    Attributes:
        requests: requests sent, repetitions included.
        answers: how often each status class was answered (`2xx`, ...).
        failed: requests that got no answer, or one that is not in order.
        repeated: requests that repeated an earlier one under its idempotency key.
        dropped: arrivals that were not sent, because as many requests as allowed were under way.
        in_flight: requests under way.
        redemptions: redemptions that members were told of.
        on_the_way: how often a coupon was asked for that had not arrived yet.
        p50_seconds: the median time of the last 2,000 answers; None before the first one.
        p99_seconds: the same, of the slowest hundredth.
    """

    requests: int
    answers: Mapping[str, int]
    failed: int
    repeated: int
    dropped: int
    in_flight: int
    redemptions: int
    on_the_way: int
    p50_seconds: float | None
    p99_seconds: float | None


class Traffic:
    """Send requests at times that no answer has a say in (an open loop), as many members at once would.

    A request whose outcome is unknown (no answer, a 5xx, or "the first one is still running") is repeated only if its
    member can do so safely: under the same idempotency key, or where repeating has no second effect. Each repetition is
    written down as one, and the failed first try stays a failure in the books.

    Args:
        balancers: how to reach each service that members use.
        journal: where everything is written down.
        seed: the members, and what they may redeem.
        token: gives a member's bearer token.
        rate: arrivals a second on average; the gaps between them are exponential, as those of independent people.
        random: decides what they do.
        in_flight_max: bound on the requests under way at once.
        requests_max: nothing new is sent after so many requests (those under way may still be repeated); None for no
            limit.
    """

    def __init__(
        self,
        balancers: Mapping[Service, Sender],
        journal: Journal,
        seed: Seed,
        token: Callable[[str], str],
        *,
        rate: float,
        random: Random,
        in_flight_max: int = 500,
        requests_max: int | None = None,
    ) -> None:
        self.members = Members(seed, random)
        self._balancers = balancers
        self._journal = journal
        self._tokens = {member_id: f"Bearer {token(member_id)}" for member_id in seed.points}
        self._rate = rate
        self._random = random
        self._in_flight_max = in_flight_max
        self._requests_max = requests_max
        self._in_flight = 0
        self._counts: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    async def run(self, ctx: Context) -> None:
        """Send requests until the context ends, or as many as are allowed; return when the last one has its answer.

        Cancellation ends the requests under way too; they stay in the journal without an answer.
        """
        loop = asyncio.get_running_loop()
        async with ErrorGroup(limit=self._in_flight_max) as group:
            arrival = loop.time()
            while self._requests_max is None or self._counts["begun"] < self._requests_max:
                # The next arrival follows from the last arrival, not from now: what was late is caught up with.
                arrival += self._random.expovariate(self._rate)
                pause = max(0.0, arrival - loop.time())
                await select(receive(ctx.done), receive(group.ctx.done), timeout_seconds=pause)
                if ctx.is_done or group.ctx.is_done:
                    break
                request = self.members.next_request()
                if group.try_go(self.handle, request):
                    self._counts["begun"] += 1
                else:
                    self._counts["dropped"] += 1
                    _release(request)

    async def handle(self, request: Request) -> None:
        """Send one member's request, repeat it where that is right, and remember what the member was told."""
        try:
            attempt, answer = await self._try(request, None)
            tries = 1
            while request.is_repeatable and (answer is None or answer.is_unknown) and tries < _TRIES:
                await asyncio.sleep(min(_PAUSE_SECONDS * 2**tries, _PAUSE_MAX_SECONDS) * self._random.uniform(0.5, 1.0))
                self._counts["repeated"] += 1
                _, answer = await self._try(request, attempt.number)
                tries += 1
        finally:
            _release(request)
        if answer is not None:
            self._learn(request, answer)

    def statistics(self) -> TrafficStatistics:
        """Return the counts so far."""
        latencies = sorted(self._latencies)
        return TrafficStatistics(
            requests=self._counts["requests"],
            answers=dict(self._answers),
            failed=self._counts["failed"],
            repeated=self._counts["repeated"],
            dropped=self._counts["dropped"],
            in_flight=self._in_flight,
            redemptions=self._counts["redemptions"],
            on_the_way=self._counts["on the way"],
            p50_seconds=_quantile(latencies, 0.50),
            p99_seconds=_quantile(latencies, 0.99),
        )

    async def _try(self, request: Request, repeats: int | None) -> tuple[Attempt, Acknowledgement | None]:
        """Write the request down, send it, and write the answer down before anybody uses it."""
        attempt = self._journal.attempt(
            request.operation,
            request.member_id,
            expected=request.expected,
            target=request.target,
            key=request.key,
            repeats=repeats,
        )
        self._counts["requests"] += 1
        self._in_flight += 1
        started = time.perf_counter()
        try:
            response = await self._balancers[request.service].send(
                request.method, request.path, headers=self._headers(request), content=request.body
            )
        except RequestFailed as error:
            self._journal.fail(attempt, str(error))
            self._counts["failed"] += 1
            return attempt, None
        finally:
            self._in_flight -= 1
        seconds = time.perf_counter() - started
        answer = _acknowledgement(attempt, response, seconds)
        self._journal.acknowledge(answer)
        self._latencies.append(seconds)
        self._answers[f"{answer.status // 100}xx"] += 1
        if answer.outcome not in request.expected:
            self._counts["failed"] += 1
        return attempt, answer

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {} if request.is_anonymous else {"authorization": self._tokens[request.member_id]}
        if request.body is not None:
            headers["content-type"] = request.content_type
        if request.key is not None:
            headers["idempotency-key"] = request.key
        return headers

    def _learn(self, request: Request, answer: Acknowledgement) -> None:
        if request.operation is Operation.REDEEM_REWARD and answer.status == httpx.codes.CREATED:
            self._counts["redemptions"] += 1
            body = answer.body
            self.members.hold(Held(body["redemption_id"], body["coupon_code"], request.member_id))
        if request.held is None or request.service is not Service.COUPON_API:
            return
        if answer.status == httpx.codes.OK:
            request.held.was_seen = True
        elif answer.status == httpx.codes.NOT_FOUND:
            self._counts["on the way"] += 1


def _release(request: Request) -> None:
    if request.held is not None and request.operation in _CHANGES:
        request.held.is_busy = False


def _acknowledgement(attempt: Attempt, response: httpx.Response, seconds: float) -> Acknowledgement:
    body: Any = {}  # Any: JSON
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        body = {}
    document = body if isinstance(body, dict) else {}
    is_change = attempt.operation in _CHANGES and response.is_success
    code = document.get("code") if response.is_error else None
    return Acknowledgement(
        attempt=attempt.number,
        status=response.status_code,
        code=code if isinstance(code, str) else None,
        body=document if is_change else {},
        seconds=round(seconds, 6),
    )


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
