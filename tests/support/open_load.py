"""Requests at times that no answer has a say in, and what became of them: an overload hides from a closed loop."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

import httpx

from patterns import ErrorGroup

_IN_FLIGHT_MAX: Final = 4_000


@dataclass(slots=True)
class LoadReport:
    """What one run of an open load saw.

    Attributes:
        seconds: from the first request to the last one's answer.
        answers: how often each status was answered, a lost request by its error's class.
        lacking: answers with 503 that did not say when to come again.
        dropped: requests that were not sent, because as many as allowed were under way.
        latencies: in seconds, of the accepted and of the refused ones.
    """

    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    lacking: int = 0
    dropped: int = 0
    latencies: dict[bool, list[float]] = field(default_factory=lambda: {True: [], False: []})

    @property
    def accepted(self) -> int:
        """How many requests did what they were for."""
        return len(self.latencies[True])

    def shown(self) -> str:
        """Return the figures in a few words: accepted a second, their median and slowest hundredth, refusals."""
        accepted, refused = (sorted(self.latencies[is_accepted]) for is_accepted in (True, False))
        text = f"{len(accepted) / self.seconds:.0f}/s in {_ms(accepted, 0.5)}, p99 {_ms(accepted, 0.99)}"
        if refused:
            text += f"; {len(refused) / self.seconds:.0f}/s refused in {_ms(refused, 0.5)}, p99 {_ms(refused, 0.99)}"
        return text + (f"; {self.dropped} not sent" if self.dropped else "")


def _ms(ordered: list[float], share: float) -> str:
    return f"{ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1_000:.0f} ms" if ordered else "never"


async def open_load(
    send: Callable[[], Awaitable[httpx.Response]], *, rate: float, seconds: float, random: Random
) -> LoadReport:
    """Send so many requests a second on average, with exponential gaps, whatever becomes of them.

    Args:
        send: sends one more request, once.
        rate: requests a second; what was late is caught up with.
        seconds: how long new ones are sent; those under way are waited for.
        random: of the gaps.
    """
    loop = asyncio.get_running_loop()
    report = LoadReport()

    async def ask() -> None:
        began = loop.time()
        try:
            answer = await send()
        except (httpx.HTTPError, TimeoutError) as error:
            report.answers[type(error).__name__] += 1
            return
        report.answers[str(answer.status_code)] += 1
        report.latencies[answer.is_success].append(loop.time() - began)
        is_refused = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        report.lacking += is_refused and "retry-after" not in answer.headers

    began = due = loop.time()
    async with ErrorGroup(limit=_IN_FLIGHT_MAX) as group:
        while (due := due + random.expovariate(rate)) < began + seconds:
            await asyncio.sleep(max(0.0, due - loop.time()))
            report.dropped += not group.try_go(ask)
    report.seconds = loop.time() - began
    return report
