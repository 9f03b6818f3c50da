"""Counts and durations of requests, cheap enough for the hot path.

prometheus_client's `labels()` and `observe()` take locks and format label sets: more than a microsecond each, several
a request. Here one dictionary look-up finds a row of plain integers; only a scrape turns rows into samples. Rows
change on the loop's thread alone; a scrape from another thread may see a request counted in one place and not yet in
the next.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

if TYPE_CHECKING:
    from runtime.http_server import HttpStatistics

BUCKETS_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Durations:
    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_SECONDS) + 1)
        self.seconds = 0.0


class HttpMetrics(Collector):
    """Collect requests by method, route template and status, and durations by method and route template.

    A route's template, never a path: so the number of series is bounded by the API itself.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._counts: dict[tuple[str, str, int], int] = {}
        self._durations: dict[tuple[str, str], _Durations] = {}
        self._in_flight: Callable[[], int] = int
        self._in_flight_max = 0
        self._server: Callable[[], HttpStatistics] | None = None
        if registry is not None:
            registry.register(self)

    def watch(self, in_flight: Callable[[], int], in_flight_max: int) -> None:
        """Report what this returns as requests in flight, and how many there may be."""
        self._in_flight = in_flight
        self._in_flight_max = in_flight_max

    def watch_server(self, statistics: Callable[[], HttpStatistics]) -> None:
        """Report a server's connections and refusals, too."""
        self._server = statistics

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        key = (method, route, status)
        counts = self._counts
        counts[key] = counts.get(key, 0) + 1
        durations = self._durations.get((method, route))
        if durations is None:
            durations = self._durations[method, route] = _Durations()
        durations.buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
        durations.seconds += seconds

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: rows appear with the first request of their kind."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Turn the rows into samples."""
        requests = CounterMetricFamily("lp_http_requests", "Answers given.", labels=("method", "route", "status"))
        for (method, route, status), count in tuple(self._counts.items()):
            requests.add_metric((method, route, str(status)), count)
        yield requests
        durations = HistogramMetricFamily(
            "lp_http_request_duration_seconds", "From the whole request to the end of the answer.",
            labels=("method", "route"),
        )  # fmt: skip
        for (method, route), row in tuple(self._durations.items()):
            durations.add_metric((method, route), _cumulated(row.buckets[:]), row.seconds)
        yield durations
        yield GaugeMetricFamily("lp_http_requests_in_flight", "Requests at work.", value=self._in_flight())
        yield GaugeMetricFamily(
            "lp_http_requests_in_flight_max", "Requests that may be at work at once.", value=self._in_flight_max
        )
        if self._server is not None:
            yield from _server_metrics(self._server())


def _server_metrics(statistics: HttpStatistics) -> Iterable[Metric]:
    yield GaugeMetricFamily("lp_http_connections", "Open connections.", value=statistics.connections)
    refused = CounterMetricFamily("lp_http_refused", "Refused before the application saw it.", labels=("reason",))
    for reason, count in statistics.refused.items():
        refused.add_metric((reason,), count)
    yield refused


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    samples: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BUCKETS_SECONDS), "+Inf"), buckets, strict=True):
        total += count
        samples.append((bound, total))
    return samples
