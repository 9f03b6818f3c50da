"""The document and the API agree: schemathesis tries whatever the document allows, and much that it does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

from patterns import Channel
from runtime.api import build_api
from runtime.auth import Scope, TokenVerifier, sign_token
from runtime.health import Health
from runtime.http_server import HttpServer
from runtime.settings import AuthSettings, HttpSettings
from tests.support.things_api import SECRET, SoldOutError, build_routes


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The base URL of a small API on a real server in a thread of its own."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    started, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
    url: list[str] = []

    async def serve() -> None:
        http = HttpSettings(port=0)
        verifier = TokenVerifier(AuthSettings(secret_file=file))
        api = build_api(
            title="Things",
            settings=http,
            verifier=verifier,
            routers=[build_routes()],
            domain_errors={SoldOutError: (409, "sold-out")},
            write_line=lambda _: None,
        )
        server = HttpServer(api, http, Health())
        server.start(Channel(1))
        url.append("http://{}:{}".format(*server.address))
        started.set()
        await stop.wait()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait(10)
    yield url[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("scope", ["member", "operator"])
def test_no_request_gets_an_answer_that_the_document_does_not_declare(address: str, scope: Scope) -> None:
    """Generated requests, good and bad, meet declared statuses and schemas, and never a 5xx."""
    headers = {"Authorization": f"Bearer {sign_token('m-1', scope, SECRET)}"}
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    tried: set[str] = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()

        @settings(max_examples=15, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            tried.add(f"{case.method} {case.path}")
            # No schema can say which cursors we made.
            case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

        check()
    assert len(tried) == 5
