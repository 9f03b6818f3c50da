"""Stop at a flood of poison before it fills the dead letters with what is really one broken producer or constraint."""

from collections import deque

from services.coupon_consumer.settings import BreakerSettings


class PoisonBreaker:
    """Opens when too many of the last records are poison, and closes with the first batch that is healthy again.

    While it is open the consumer pauses before each batch and is not ready: a person should look, nothing is lost, and
    nothing is skipped. It does not end the process, because a restart would only forget the flood and take more of it.
    """

    def __init__(self, settings: BreakerSettings) -> None:
        self._settings = settings
        self._window: deque[tuple[int, int]] = deque()
        self._records = 0
        self._poison = 0
        self._is_open = False

    @property
    def is_open(self) -> bool:
        """Whether a flood was seen that is not over."""
        return self._is_open

    def observe(self, records: int, poison: int) -> None:
        """Look at records that were settled, of which so many came to be dead letters."""
        if self._is_open:
            if poison < self._settings.poison_share * records:
                self._is_open = False
                self._window.clear()
                self._records = self._poison = 0
            return
        self._window.append((records, poison))
        self._records += records
        self._poison += poison
        while self._records - self._window[0][0] >= self._settings.window_records:
            old_records, old_poison = self._window.popleft()
            self._records -= old_records
            self._poison -= old_poison
        if self._records >= self._settings.records_min:
            self._is_open = self._poison >= self._settings.poison_share * self._records
