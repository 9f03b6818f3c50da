"""What reward_store tells about its background work."""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.reward_store.outbox import Backlog


class RelayMetrics:
    """Backlog and progress of the outbox. The backlog is the whole table's, whoever publishes it; NaN when unknown."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.backlog = Gauge("lp_outbox_backlog_rows", "Events that wait to be published.", registry=registry)
        self.oldest = Gauge(
            "lp_outbox_oldest_seconds", "How long the oldest unpublished event has waited.", registry=registry
        )
        self.published = Counter(
            "lp_outbox_published", "Events published and marked by this process.", registry=registry
        )
        self.failures = Counter(
            "lp_outbox_failures", "Batches that the database or the broker refused.", registry=registry
        )
        self.refused = Counter(
            "lp_outbox_refused", "Times the broker said that an event can never be stored.", registry=registry
        )

    def show(self, backlog: Backlog) -> None:
        """Show a backlog that was counted just now."""
        self.backlog.set(backlog.rows)
        self.oldest.set(backlog.oldest_seconds)

    def unknown(self) -> None:
        """Show that the backlog cannot be counted: an old number would look like a fact."""
        self.backlog.set(math.nan)
        self.oldest.set(math.nan)


class CancelMetrics:
    """How cancellations ended, and how many have not, whoever began them; NaN when unknown."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ended = Counter(
            "lp_cancellations",
            "Cancellations by their end: cancelled, refused (the coupon was used), put off, or rejected (see the log).",
            ("end",),
            registry=registry,
        )
        for end in ("cancelled", "refused", "put off", "rejected"):
            self.ended.labels(end)  # zeros from the start: a counter that begins at one hides its first event
        self.taken_over = Counter(
            "lp_cancellations_taken_over", "Cancellations left unfinished by others and taken up.", registry=registry
        )
        self.rows = Gauge("lp_cancelling_rows", "Cancellations that are not finished.", registry=registry)
        self.oldest = Gauge(
            "lp_cancelling_oldest_seconds", "How long the oldest unfinished cancellation has lasted.", registry=registry
        )

    def show(self, backlog: Backlog) -> None:
        """Show what was counted just now."""
        self.rows.set(backlog.rows)
        self.oldest.set(backlog.oldest_seconds)

    def unknown(self) -> None:
        """Show that nothing could be counted."""
        self.rows.set(math.nan)
        self.oldest.set(math.nan)
