"""Count what the consumer does. What the thread counts anyway is exposed from its own statistics in `app.py`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.coupon_consumer.store import Saved

_SIZES = (1, 10, 50, 100, 250, 500, 1_000, 2_000, 5_000, 10_000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ConsumeMetrics:
    """The metrics of one consumer, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lag = Gauge(
            "lp_consumer_lag_records",
            "Records the group has not stored yet. Each member tells of all partitions: take the maximum, not the sum.",
            ["partition"],
            registry=registry,
        )
        self.breaker_open = Gauge("lp_consumer_breaker_open", "1 while poison floods in.", registry=registry)
        self._batch = Histogram("lp_consumer_batch_records", "Records a batch.", buckets=_SIZES, registry=registry)
        self._seconds = Histogram(
            "lp_consumer_transaction_seconds", "Time to store a batch.", buckets=_SECONDS, registry=registry
        )
        records = Counter("lp_consumer_records", "Records settled, by outcome.", ["outcome"], registry=registry)
        self._stored = records.labels("stored")
        self._skipped = records.labels("skipped")
        self._dead_lettered = records.labels("dead_lettered")
        tries = Counter("lp_consumer_tries", "Tries to store or place, by outcome.", ["outcome"], registry=registry)
        self.tries_done = tries.labels("done")
        self.tries_unavailable = tries.labels("unavailable")
        self.tries_ownership_lost = tries.labels("ownership_lost")

    def saved(self, saved: Saved) -> None:
        """Count what a transaction stored: a batch, or a part of one."""
        self._stored.inc(saved.stored)
        self._skipped.inc(saved.skipped)
        self._dead_lettered.inc(saved.dead_lettered)

    def done(self, *, records: int, seconds: float) -> None:
        """Count a try that stored all it was given."""
        self.tries_done.inc()
        self._batch.observe(records)
        self._seconds.observe(seconds)
