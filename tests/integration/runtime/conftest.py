"""The HTTP server runs on uvloop in a service and on asyncio's own loop where there is none: both are tested."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_ON_BOTH_LOOPS = (
    "test_http_limits.py",
    "test_http_pieces.py",
    "test_http_drain.py",
    "test_http_overload.py",
    "test_acceptor.py",
)


def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - the hook's signature
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the tests of the HTTP server on both loops, and all others on asyncio's."""
    if item.path.name in _ON_BOTH_LOOPS:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
