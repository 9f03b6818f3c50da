"""Count what becomes of the changes, by stream."""

import math
import time
from collections import Counter as Counts
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.consent_consumer.outcome import Outcome


class ConsentMetrics:
    """The metrics of one consumer, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_stream = ["stream"]
        self.outcomes = Counter(
            "lp_consent_outcomes",
            "Tries of a change, by what Salesforce said of it.",
            ["stream", "verdict"],
            registry=registry,
        )
        self.settled = Counter("lp_consent_settled", "Changes settled.", by_stream, registry=registry)
        self.dead = Counter("lp_consent_dead_lettered", "Changes given up.", by_stream, registry=registry)
        self.unavailable = Counter(
            "lp_consent_unavailable", "Calls that came to nothing, and were made again.", by_stream, registry=registry
        )
        self.settled_at = Gauge(
            "lp_consent_last_settled_timestamp_seconds",
            "When a change was settled last, in Unix time; 0 before the first.",
            by_stream,
            registry=registry,
        )
        self.position_age = Gauge(
            "lp_consent_position_age_seconds",
            "How far a stored position is behind the oplog's end. Each instance tells of all: take the maximum.",
            by_stream,
            registry=registry,
        )
        self.oplog_window = Gauge(
            "lp_consent_oplog_window_seconds", "How far back the oplog reaches.", registry=registry
        )
        self.dead_letters = Gauge("lp_consent_dead_letters", "Dead letters that are kept.", registry=registry)

    def show(self, ages: Mapping[str, int], *, window_seconds: int, dead_letters: int) -> None:
        """Show what was seen just now: the age of each stream's position, the oplog's window, the dead letters."""
        for stream, seconds in ages.items():
            self.position_age.labels(stream).set(seconds)
        self.oplog_window.set(window_seconds)
        self.dead_letters.set(dead_letters)

    def unknown(self) -> None:
        """Show that nothing was seen: an old number would look like a fact."""
        self.position_age.clear()
        self.oplog_window.set(math.nan)
        self.dead_letters.set(math.nan)


class StreamMetrics:
    """The metrics of the stream of this name."""

    def __init__(self, metrics: ConsentMetrics, stream: str) -> None:
        self.stream = stream
        self._metrics = metrics
        self._settled = metrics.settled.labels(stream)
        self._dead = metrics.dead.labels(stream)
        self._settled_at = metrics.settled_at.labels(stream)
        self.unavailable = metrics.unavailable.labels(stream)

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Count the tries of one call."""
        for verdict, tries in Counts(outcome.verdict for outcome in outcomes).items():
            self._metrics.outcomes.labels(self.stream, verdict).inc(tries)

    def settle(self, changes: int, *, dead: int) -> None:
        """Count changes that are done, and how many documents of them are dead letters now."""
        if changes:
            self._settled.inc(changes)
            self._dead.inc(dead)
            self._settled_at.set(time.time())
