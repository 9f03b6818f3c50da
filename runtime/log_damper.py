"""Say the same thing once in a while, however often it happens."""

import time
from typing import Final

_QUIET_SECONDS: Final = 10.0


class LogDamper:
    """Remember what was said when; for one thread."""

    def __init__(self) -> None:
        self._said_at: dict[str, float] = {}

    def is_news(self, topic: str) -> bool:
        """Return whether this topic was not said within the last 10 s, and note that it is said now."""
        now = time.monotonic()
        said_at = self._said_at.get(topic)
        if said_at is not None and now - said_at < _QUIET_SECONDS:
            return False
        self._said_at[topic] = now
        return True

    def forget(self, topic: str) -> None:
        """Make a topic news again, since what it was about is over."""
        self._said_at.pop(topic, None)
