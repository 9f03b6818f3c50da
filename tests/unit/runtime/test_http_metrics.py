"""Metrics of requests: what a scrape sees of what was counted."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from runtime.http_metrics import HttpMetrics
from runtime.http_server import HttpStatistics


def test_scrape_shows_counts_and_cumulated_durations() -> None:
    """Requests are counted by method, route and status; buckets are cumulative and end in the count."""
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    metrics.observe("GET", "/v1/x/{id}", 200, 0.0007)
    metrics.observe("GET", "/v1/x/{id}", 200, 0.001)
    metrics.observe("GET", "/v1/x/{id}", 404, 99.0)
    text = generate_latest(registry).decode()
    label = 'method="GET",route="/v1/x/{id}"'
    for line in (
        f'lp_http_requests_total{{{label},status="200"}} 2.0',
        f'lp_http_requests_total{{{label},status="404"}} 1.0',
        f'lp_http_request_duration_seconds_bucket{{le="0.0005",{label}}} 0.0',
        f'lp_http_request_duration_seconds_bucket{{le="0.001",{label}}} 2.0',
        f'lp_http_request_duration_seconds_bucket{{le="10.0",{label}}} 2.0',
        f'lp_http_request_duration_seconds_bucket{{le="+Inf",{label}}} 3.0',
        f"lp_http_request_duration_seconds_count{{{label}}} 3.0",
        "lp_http_requests_in_flight 0.0",
    ):
        assert line in text, text


def test_scrape_shows_the_server_that_is_watched() -> None:
    """Requests in flight with their bound, connections and refusals of a server appear once it is watched."""
    registry = CollectorRegistry()
    metrics = HttpMetrics(registry)
    metrics.watch(lambda: 3, 128)
    metrics.watch_server(lambda: HttpStatistics(5, 10, 3, {"body_bytes": 2}))
    text = generate_latest(registry).decode()
    assert "lp_http_requests_in_flight 3.0" in text
    assert "lp_http_requests_in_flight_max 128.0" in text
    assert "lp_http_connections 5.0" in text
    assert 'lp_http_refused_total{reason="body_bytes"} 2.0' in text
