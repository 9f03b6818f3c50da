"""Tests that need containers: without `TEST_SERVERS=containers`, and where no engine answers, they say so."""

import pytest

from tests.support.servers import IN_CONTAINERS, VARIABLE, need_engine


@pytest.fixture(scope="session", autouse=True)
def containers() -> None:
    """Skip the test, or fail it in a pipeline, where there are no containers."""
    if not IN_CONTAINERS:
        pytest.skip(f"needs containers: make test-containers, or {VARIABLE}=containers")
    need_engine()
