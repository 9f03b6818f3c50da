"""Spare Salesforce while it fails: one pause for all calls, whichever stream makes them."""

import asyncio
import math
import random
from typing import Final

from runtime.backoff import Backoff
from services.consent_consumer.errors import SalesforceDenied, SalesforceUnavailable
from services.consent_consumer.salesforce_settings import SalesforceSettings

DEPENDENCY: Final = "salesforce"
_STRETCH_MAX: Final = 1.1


class Pause:
    """Remembers until when nobody may call, and why; for the tasks of one loop.

    Calls that failed side by side are one failure: only one that began after the pause before it was set makes the next
    one longer. A pause never becomes shorter, and it ends by itself.

    Args:
        settings: its times.
        rng: where the random part of each pause comes from; seed it in tests.
    """

    def __init__(self, settings: SalesforceSettings, *, rng: random.Random | None = None) -> None:
        self._random = rng or random.Random()  # noqa: S311 - spreads retries in time, guards nothing
        self._backoff = Backoff(settings.backoff_first_seconds, settings.backoff_most_seconds, rng=self._random)
        self._retry_after_most_seconds = settings.retry_after_most_seconds
        self._denied_seconds = settings.denied_pause_seconds
        self._until = self._failed_at = -math.inf
        self._error: type[SalesforceUnavailable] = SalesforceUnavailable
        self._detail = ""

    @property
    def seconds(self) -> float:
        """How long it still lasts; 0 when calls may be made."""
        return max(0.0, self._until - asyncio.get_running_loop().time())

    def check(self) -> None:
        """Return if calls may be made now.

        Raises:
            SalesforceUnavailable: Not yet; it is of the class of the failure that made the pause.
        """
        if (seconds := self.seconds) > 0:
            raise self._error(DEPENDENCY, f"paused: {self._detail}", retry_after_seconds=seconds)

    def fail(self, detail: str, *, began: float, retry_after_seconds: float | None = None) -> SalesforceUnavailable:
        """Begin or prolong the pause after a call that failed, and return the error to be raised.

        Args:
            detail: what was the matter.
            began: when the call did, by the loop's clock.
            retry_after_seconds: how long Salesforce wants to be left alone at least.
        """
        seconds = 0.0
        if began >= self._failed_at:
            self._failed_at = asyncio.get_running_loop().time()
            seconds = self._backoff.fail()
        if retry_after_seconds is not None:
            wanted = retry_after_seconds * self._random.uniform(1.0, _STRETCH_MAX)
            seconds = max(seconds, min(wanted, self._retry_after_most_seconds))
        self._hold(SalesforceUnavailable, detail, seconds)
        return SalesforceUnavailable(DEPENDENCY, detail, retry_after_seconds=self.seconds)

    def deny(self, detail: str) -> SalesforceDenied:
        """Begin the pause after a refusal that concerns every call, and return the error to be raised."""
        self._hold(SalesforceDenied, detail, self._denied_seconds)
        return SalesforceDenied(DEPENDENCY, detail, retry_after_seconds=self.seconds)

    def settle(self, *, began: float) -> None:
        """Note that a call was answered as it should be; one that began before the last failure says nothing."""
        if began >= self._failed_at:
            self._backoff.reset()

    def _hold(self, error: type[SalesforceUnavailable], detail: str, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        if until > self._until:
            self._until, self._error, self._detail = until, error, detail
