"""Ask a server until it answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from patterns import Context
from runtime.backoff import Backoff
from runtime.errors import DependencyUnavailable
from runtime.log_damper import LogDamper
from runtime.logs import get_logger
from services.consent_consumer.metrics import StreamMetrics
from services.consent_consumer.settings import RetrySettings

T = TypeVar("T")

_log = get_logger(__name__)


class Patience:
    """How one stream waits for Salesforce and for the database; for one task."""

    def __init__(self, metrics: StreamMetrics, retry: RetrySettings) -> None:
        self._metrics = metrics
        self._backoff = Backoff(retry.first_seconds, retry.most_seconds)
        self._damper = LogDamper()
        self._failure: DependencyUnavailable | None = None

    async def ask(self, ctx: Context, question: Callable[[], Awaitable[T]]) -> T:
        """Return what `question()` returns; ask again and again while it raises `DependencyUnavailable`.

        The context ends the waits between, never a question, which has to be bounded by itself.

        Raises:
            ContextError: The context ended between two questions.
        """
        while True:
            try:
                answer = await question()
            except DependencyUnavailable as error:
                self._failure = error
                self._metrics.unavailable.inc()
                seconds = max(self._backoff.fail(), error.retry_after_seconds)
                if self._damper.is_news(error.dependency):
                    _log.warning(
                        "Waiting for a server", stream=self._metrics.stream, error=str(error), wait_seconds=seconds
                    )
                await ctx.run(asyncio.sleep(seconds))
            else:
                self._failure = None
                self._backoff.reset()
                return answer

    def check(self) -> None:
        """Return when the last question was answered.

        Raises:
            DependencyUnavailable: It was not.
        """
        if self._failure is not None:
            raise DependencyUnavailable(self._failure.dependency, self._failure.detail) from self._failure
