"""Keep the process's metrics in one registry and render them for Prometheus.

Everything of ours begins with ``lp_``. Numbers that some object counts anyway (a pool, a log sink) are not counted
twice: a collector asks the object when Prometheus asks us. Go's client library has the same shapes.
"""

import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any, Final

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from runtime.health import Readiness
from runtime.logs import log_statistics

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
registry: Final = CollectorRegistry(auto_describe=True)
"""The process's one registry: ``Counter("lp_...", "...", registry=registry)``."""


def render_metrics() -> bytes:
    """Return the registry in Prometheus' text format. Safe from any thread."""
    return generate_latest(registry)


class ProcessMetrics(Collector):
    """Tell what runs here: service, instance, versions, and the lines the log had to drop."""

    def __init__(self, service: str, instance: str) -> None:
        self._labels = {
            "service": service,
            "instance": instance,
            "python": platform.python_version(),
            "implementation": sys.implementation.name,
        }

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        yield InfoMetricFamily("lp_build", "What runs here.", value=self._labels)
        statistics = log_statistics()
        if statistics is not None:
            yield CounterMetricFamily("lp_log_lines_written", "Log lines written.", value=statistics.written)
            yield CounterMetricFamily("lp_log_lines_dropped", "Log lines lost.", value=statistics.dropped)


class ReadinessCollector(Collector):
    """Tell what `/readyz` says, and of what is not ready the part and the reason."""

    def __init__(self, readiness: Callable[[], Readiness]) -> None:
        self._readiness = readiness

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        readiness = self._readiness()
        yield GaugeMetricFamily("lp_ready", "1 when the process takes traffic or records.", value=readiness.is_ready)
        parts = GaugeMetricFamily("lp_not_ready", "1 for each part that is not ready.", labels=("part", "reason"))
        for part, reason in readiness.not_ready.items():
            parts.add_metric((part, reason), 1)
        yield parts


class StatisticsCollector(Collector):
    """Expose an object's ``statistics()`` dataclass: each number as ``lp_<prefix>_<field>`` under one label.

    Fields named in ``counters`` only ever grow; the others are gauges.
    """

    def __init__(
        self, prefix: str, statistics: Callable[[], Any], *, counters: frozenset[str], name: str = "default"
    ) -> None:
        self._prefix = prefix
        self._statistics = statistics
        self._counters = counters
        self._name = name

    def collect(self) -> Iterator[Metric]:
        """Yield one metric a field that is a number."""
        statistics = self._statistics()
        for field in fields(statistics):
            value = getattr(statistics, field.name)
            if not isinstance(value, int | float):
                continue
            text = f"{field.name.replace('_', ' ').capitalize()} of {self._prefix.replace('_', ' ')}."
            family = CounterMetricFamily if field.name in self._counters else GaugeMetricFamily
            metric = family(f"lp_{self._prefix}_{field.name}", text, labels=["name"])
            metric.add_metric([self._name], float(value))
            yield metric


def register_process(service: str, instance: str) -> None:
    """Put into the registry what every process has; once a process."""
    registry.register(ProcessMetrics(service, instance))
    ProcessCollector(namespace="lp", registry=registry)
    GCCollector(registry=registry)
