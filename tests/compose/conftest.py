"""Tests of the stack that docker-compose.yml describes; elsewhere, and where no engine answers, they say so."""

import pytest

from tests.support.servers import IN_CONTAINERS, VARIABLE, need_engine


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Skip the test, or fail it in a pipeline, where there is no engine."""
    if not IN_CONTAINERS:
        pytest.skip(f"needs docker compose: make test-compose, or {VARIABLE}=containers")
    need_engine()
