"""What a load tells Prometheus of the file in hand: a load that hangs can be told from one that works."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from etl.progress import Counters

_OUTCOMES: Final = ("processed", "skipped", "rejected")


class LoadMetrics(Collector):
    """Expose the counters of one file after the other; before the first one, and between two, they stand still."""

    def __init__(self) -> None:
        self._counters = Counters()
        self._bytes_total = 0

    def follow(self, counters: Counters, bytes_total: int) -> None:
        """Tell of this file from now on.

        Args:
            counters: its.
            bytes_total: how much of it there is to load.
        """
        self._counters, self._bytes_total = counters, bytes_total

    def collect(self) -> Iterator[Metric]:
        """Yield what there is at this moment."""
        counters = self._counters
        rows = GaugeMetricFamily("lp_etl_rows", "Rows of the file in hand.", labels=("outcome",))
        for outcome in _OUTCOMES:
            rows.add_metric((outcome,), getattr(counters, outcome).load())
        yield rows
        yield GaugeMetricFamily("lp_etl_failed_batches", "Batches that were not loaded.", value=counters.failed.load())
        yield GaugeMetricFamily("lp_etl_bytes", "Bytes of the file that are to be loaded.", value=self._bytes_total)
        yield GaugeMetricFamily("lp_etl_bytes_done", "Those of them that are.", value=counters.bytes_done.load())
