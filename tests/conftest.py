"""What every test may use."""

import signal
from pathlib import Path
from signal import Signals

import pytest
from hypothesis import HealthCheck, settings

from tests.support.fault_table import (
    fault_report,
    note_faults,
    pytest_addoption,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)
from tests.support.mongo_settings import any_driver, mongo_settings
from tests.support.servers import (
    IN_CONTAINERS,
    SERVER_FIXTURES,
    check_kind,
    database,
    kafka,
    mongo,
    own_kafka,
    own_mongo,
    own_postgres,
    postgres,
    topic,
)

__all__ = [
    "any_driver",
    "database",
    "fault_report",
    "kafka",
    "mongo",
    "mongo_settings",
    "own_kafka",
    "own_mongo",
    "own_postgres",
    "postgres",
    "pytest_addoption",
    "pytest_runtest_makereport",
    "pytest_terminal_summary",
    "topic",
]

# A busy machine is slow; that is no fault of a test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_TESTS = Path(__file__).parent
_LIMIT_SECONDS = {
    "integration": 60,
    "bad_input": 120,
    "security": 120,
    "containers": 240,
    "end_to_end": 180,
    "faults": 300,
}
_CONTAINER_START_SECONDS = 60


def pytest_configure() -> None:
    """Refuse a setting that would be taken for another, and give the processes of tests the usual signals.

    A shell starts what it leaves in the background without SIGINT, and `nohup` without SIGHUP; children inherit that.
    """
    check_kind()
    signal.signal(Signals.SIGINT, signal.default_int_handler)
    signal.signal(Signals.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests on real servers and processes more than the 10 s of a unit test; a test's own mark still wins.

    With servers in containers, integration tests that use no server are left out: they would only repeat themselves.
    """
    note_faults(config, items)
    repeated = [item for item in items if IN_CONTAINERS and _kind(item) == "integration" and not _needs_servers(item)]
    if repeated:
        config.hook.pytest_deselected(items=repeated)
        items[:] = [item for item in items if item not in repeated]
    for item in items:
        if (limit := _LIMIT_SECONDS.get(_kind(item))) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(limit + IN_CONTAINERS * _CONTAINER_START_SECONDS))


def _kind(item: pytest.Item) -> str:
    return item.path.relative_to(_TESTS).parts[0] if item.path.is_relative_to(_TESTS) else ""


def _needs_servers(item: pytest.Item) -> bool:
    return not SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
