"""What a process tells at `/metrics`, a service's or a load's: asked of the real wiring, with no server behind it.

    python -m tests.support.exposed_metrics SERVICE|etl

It starts the service as `python -m services.SERVICE` does, or a load of a file as `python -m etl` does, except that
nothing is awaited before the start. At the moment when it says that it is ready, everything it will ever tell of is
registered: then it is written down, as JSON, and the process ends.
"""

import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).parents[2]
SERVICES = ("reward_store", "coupon_api", "coupon_consumer", "campaign_api", "consent_consumer")
PROCESSES = (*SERVICES, "etl")
_TIMEOUT_SECONDS = 60
_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("", "_sum", "_count"),
    "info": ("_info",),
}


class Exposed(NamedTuple):
    """One metric: its kind, its labels, and the names of its samples, as PromQL has them."""

    kind: str
    labels: frozenset[str]
    samples: tuple[str, ...]


@functools.cache
def exposed_metrics() -> dict[str, dict[str, Exposed]]:
    """Return of each process its metrics by name."""
    command = [sys.executable, "-m", "tests.support.exposed_metrics"]
    asked = {
        process: subprocess.Popen([*command, process], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for process in PROCESSES
    }
    try:
        told = {service: process.communicate(timeout=_TIMEOUT_SECONDS)[0] for service, process in asked.items()}
    finally:
        for process in asked.values():
            process.kill()
            process.communicate()
    return {
        service: {
            name: Exposed(kind, frozenset(labels), tuple(name + suffix for suffix in _SUFFIXES.get(kind, ("",))))
            for name, kind, labels in json.loads(text)
        }
        for service, text in told.items()
    }


def _registered() -> list[tuple[str, str, list[str]]]:
    """Return name, kind and labels of everything in the process's registry."""
    from runtime.metrics import registry

    found: list[tuple[str, str, list[str]]] = []
    for collector in list(registry._collector_to_names):
        for metric in collector.collect():
            labels: Any = collector if isinstance(collector, MetricWrapperBase) else metric
            names = getattr(labels, "_labelnames", ())
            if metric.type == "info":
                names = [*names, *(name for sample in metric.samples for name in sample.labels)]
            if metric.type == "histogram":
                names = [*names, "le"]
            found.append((metric.name, metric.type, list(names)))
    return found


def _environment(service: str, directory: Path) -> dict[str, str]:
    secret = directory / "secret"
    secret.write_text("s" * 48)
    http = {"AUTH__SECRET_FILE": str(secret), "HTTP__PORT": "0"}
    postgres = {"POSTGRES__DATABASE": "none", "POSTGRES__USER": "none", "POSTGRES__PORT": "1"}
    mongo = {"MONGO__HOSTS": "127.0.0.1:1", "MONGO__REPLICA_SET": "none", "MONGO__DATABASE": "none"}
    kafka = {"KAFKA__BOOTSTRAP": "127.0.0.1:1"}
    others = {"COUPON_API__URLS": "http://127.0.0.1:1", "COUPON_API__TOKEN_FILE": str(secret)}
    salesforce = {"CLIENT_SECRET_FILE": str(secret), "CLIENT_ID": "none", "URL": "http://127.0.0.1:1"}
    values = {
        "reward_store": postgres | kafka | http | others,
        "coupon_api": postgres | http,
        "coupon_consumer": postgres | kafka,
        "campaign_api": mongo | http,
        "consent_consumer": mongo
        | {f"SALESFORCE__{name}": value for name, value in salesforce.items()}
        | {"START": "now"},
        "etl": postgres,
    }
    process = {"ADMIN__PORT": "0", "LOG_LEVEL": "ERROR"}
    return {f"{service.upper()}_{name}": value for name, value in (values[service] | process).items()}


async def _be_there(*_: object) -> None:
    """Stand for a server that answers."""


def _tell(_: object) -> None:
    sys.stdout.write(json.dumps(_registered()))
    sys.stdout.flush()
    os._exit(0)


def main(service: str) -> int:
    """Run a service, or a load, until it says that it is ready."""
    package = f"services.{service}" if service in SERVICES else service
    arguments = [] if service in SERVICES else ["load", "none.csv"]
    with (
        tempfile.TemporaryDirectory() as directory,
        patch.dict(os.environ, _environment(service, Path(directory))),
        patch("runtime.postgres.PostgresPool.wait_for_connection", _be_there),
        patch("runtime.kafka_topic.KafkaTopic.wait_for_topic", _be_there),
        patch("runtime.mongo.MongoDatabase.wait_for_connection", _be_there),
        patch("runtime.mongo.MongoDatabase.create_indexes", _be_there),
        patch("runtime.health.Health.set_ready", _tell),
        patch.object(sys, "argv", [package, *arguments]),
    ):
        status: int = importlib.import_module(f"{package}.__main__").main()
        return status or 1


if __name__ == "__main__":
    sys.argv, arguments = sys.argv[:1], sys.argv[1:]
    sys.exit(main(*arguments))
