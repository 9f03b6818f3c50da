"""What every test may use."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import database, kafka, own_kafka, own_postgres, postgres, topic

__all__ = ["database", "kafka", "own_kafka", "own_postgres", "postgres", "topic"]

# A busy machine is slow; that is no fault of a test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_TESTS = Path(__file__).parent
_LIMIT_SECONDS = {"integration": 60, "end_to_end": 180, "faults": 300}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests on real servers and processes more than the 10 s of a unit test; a test's own mark still wins."""
    for item in items:
        kind = item.path.relative_to(_TESTS).parts[0] if item.path.is_relative_to(_TESTS) else ""
        if kind in _LIMIT_SECONDS and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_LIMIT_SECONDS[kind]))
