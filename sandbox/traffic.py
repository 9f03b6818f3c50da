"""Members' traffic: an open loop by the published mix, written down as it goes."""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

import httpx
import orjson

from patterns import Context, ErrorGroup, receive, select
from sandbox.balancer import RequestFailed
from sandbox.campaign_mix import OPERATOR
from sandbox.instance import Service
from sandbox.journal import Acknowledgement, Attempt, Journal, Operation, Seed
from sandbox.mix import Members
from sandbox.request import Held, Request

_TRIES = 8
_PAUSE_SECONDS = 0.1
_PAUSE_MAX_SECONDS = 2.0
_LATENCIES = 2_000
_COUPON_CHANGES = (Operation.REDEEM_REWARD, Operation.REDEEM_COUPON, Operation.CANCEL_REDEMPTION)
_CHANGES = (*_COUPON_CHANGES, Operation.CREATE_CAMPAIGN, Operation.CHANGE_CAMPAIGN)


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
        excused: answers that were in order only because of what was allowed at that time (see `Traffic.allowing`).
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
    excused: int
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
        balancers: how to reach each service that members use; without campaign_api nobody asks about campaigns.
        journal: where everything is written down.
        seed: the members, and what they may redeem.
        token: gives a bearer token, a member's, or the operator's for the name `OPERATOR`.
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
        self.members = Members(seed, random, has_campaigns=Service.CAMPAIGN_API in balancers)
        self._balancers = balancers
        self._journal = journal
        self._tokens = {subject: f"Bearer {token(subject)}" for subject in (*seed.points, OPERATOR)}
        self._allowed: dict[Service, tuple[str, ...]] = {}
        self._strict: dict[asyncio.Future[None], Service] = {}
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
                    self._release(request)

    async def handle(self, request: Request) -> None:
        """Send one member's request, repeat it where that is right, and remember what the member was told."""
        try:
            attempt, answer, document = await self._try(request, None)
            tries = 1
            while request.is_repeatable and (answer is None or answer.is_unknown) and tries < _TRIES:
                await asyncio.sleep(min(_PAUSE_SECONDS * 2**tries, _PAUSE_MAX_SECONDS) * self._random.uniform(0.5, 1.0))
                self._counts["repeated"] += 1
                _, answer, document = await self._try(request, attempt.number)
                tries += 1
        finally:
            self._release(request)
        self._learn(request, answer, document)

    @contextlib.asynccontextmanager
    async def allowing(self, service: Service, outcomes: Sequence[str]) -> AsyncIterator[None]:
        """Let requests to a service have these answers too while a block runs; they are counted as excused.

        The block begins when each request to it that was sent before has its answer, so that what happens in the block
        happens only to requests that were written down as allowing for it.
        """
        self._allowed[service] = tuple(outcomes)
        try:
            if strict := [answered for answered, one in self._strict.items() if one is service]:
                await asyncio.wait(strict)
            yield
        finally:
            del self._allowed[service]

    def statistics(self) -> TrafficStatistics:
        """Return the counts so far."""
        latencies = sorted(self._latencies)
        return TrafficStatistics(
            requests=self._counts["requests"],
            answers=dict(self._answers),
            failed=self._counts["failed"],
            excused=self._counts["excused"],
            repeated=self._counts["repeated"],
            dropped=self._counts["dropped"],
            in_flight=self._in_flight,
            redemptions=self._counts["redemptions"],
            on_the_way=self._counts["on the way"],
            p50_seconds=_quantile(latencies, 0.50),
            p99_seconds=_quantile(latencies, 0.99),
        )

    async def _try(
        self, request: Request, repeats: int | None
    ) -> tuple[Attempt, Acknowledgement | None, dict[str, Any]]:  # Any: JSON
        """Write the request down, send it, and write the answer down before anybody uses it."""
        allowed = self._allowed.get(request.service, ())
        in_order = request.expected if repeats is None else (*request.expected, *request.expected_again)
        attempt = self._journal.attempt(
            request.operation,
            request.member_id,
            expected=(*in_order, *allowed),
            target=request.target,
            key=request.key,
            repeats=repeats,
            wanted=request.wanted,
            version=request.if_match,
        )
        answered = asyncio.get_running_loop().create_future()
        if not allowed:
            self._strict[answered] = request.service
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
            return attempt, None, {}
        finally:
            self._in_flight -= 1
            self._strict.pop(answered, None)
            answered.set_result(None)
        seconds = time.perf_counter() - started
        document = _document(response)
        answer = _acknowledgement(attempt, response, document, seconds)
        self._journal.acknowledge(answer)
        self._latencies.append(seconds)
        self._answers[f"{answer.status // 100}xx"] += 1
        if answer.outcome not in in_order:
            self._counts["excused" if answer.outcome in allowed else "failed"] += 1
        return attempt, answer, document

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {} if request.is_anonymous else {"authorization": self._tokens[request.member_id]}
        if request.body is not None:
            headers["content-type"] = request.content_type
        if request.key is not None:
            headers["idempotency-key"] = request.key
        if request.if_match is not None:
            headers["if-match"] = f'"{request.if_match}"'
        return headers

    def _learn(self, request: Request, answer: Acknowledgement | None, document: dict[str, Any]) -> None:  # Any: JSON
        self.members.campaigns.learn(request, answer, document)
        if answer is None:
            return
        if request.operation is Operation.REDEEM_REWARD and answer.status == httpx.codes.CREATED:
            self._counts["redemptions"] += 1
            self.members.hold(Held(document["redemption_id"], document["coupon_code"], request.member_id))
        if request.held is None or request.service is not Service.COUPON_API:
            return
        if answer.status == httpx.codes.OK:
            request.held.was_seen = True
        elif answer.status == httpx.codes.NOT_FOUND:
            self._counts["on the way"] += 1

    def _release(self, request: Request) -> None:
        self.members.campaigns.release(request)
        if request.held is not None and request.operation in _COUPON_CHANGES:
            request.held.is_busy = False


def _document(response: httpx.Response) -> dict[str, Any]:  # Any: JSON
    try:
        body = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _acknowledgement(
    attempt: Attempt, response: httpx.Response, document: dict[str, Any], seconds: float
) -> Acknowledgement:
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
