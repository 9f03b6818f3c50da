"""An API as build_api makes it: tokens first, one spelling a resource, whole Allow, and documents that are true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.api import build_api, build_router
from runtime.auth import TokenVerifier, sign_token
from runtime.http_edge import HttpEdge
from runtime.settings import AuthSettings, HttpSettings
from tests.support.asgi import Headers, Sent, call, http_scope
from tests.support.things_api import SECRET, SoldOutError, build_routes


@pytest.fixture
def api(tmp_path: Path) -> HttpEdge:
    """An API with routes of both forms."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return build_api(
        title="Things",
        settings=HttpSettings(),
        verifier=TokenVerifier(AuthSettings(secret_file=file)),
        routers=[build_routes()],
        domain_errors={SoldOutError: (409, "sold-out")},
        write_line=lambda _: None,
    )


def _as(scope: str, *more: tuple[bytes, bytes]) -> Headers:
    token = sign_token("m-1", "operator" if scope == "operator" else "member", SECRET)
    return [(b"authorization", b"Bearer " + token.encode()), (b"content-type", b"application/json"), *more]


async def _ask(
    api: HttpEdge, method: str, path: str, body: bytes = b"", *, headers: Headers | None = None, query: bytes = b""
) -> Sent:
    chosen = _as("member") if headers is None else headers
    return await call(api, http_scope(method, path, query=query, headers=chosen), body)


async def test_fast_route_answers_its_caller(api: HttpEdge) -> None:
    """A fast route knows who calls, and its bytes and headers come as they are."""
    sent = await _ask(api, "GET", "/v1/things/abc")
    assert (sent.status, sent.body, sent.headers["x"]) == (200, b'{"name": "m-1"}', "y")
    assert sent.headers["content-length"] == str(len(sent.body))


async def test_ordinary_route_gets_member_key_and_body(api: HttpEdge) -> None:
    """FastAPI's own form works with our dependencies."""
    headers = _as("member", (b"idempotency-key", b"key-00001"))
    sent = await _ask(api, "POST", "/v1/things", b'{"name":"x"}', headers=headers)
    assert (sent.status, json.loads(sent.body)) == (201, {"name": "m-1 key-00001 x"})


@pytest.mark.parametrize("path", ["/v1/things", "/v1/things/abc", "/v1/slow", "/nowhere", "/docs/more"])
async def test_without_a_token_nothing_is_told(api: HttpEdge, path: str) -> None:
    """Every path but the documents answers 401, an unknown one too."""
    sent = await _ask(api, "GET", path, headers=[])
    assert (sent.status, sent.code, sent.headers["www-authenticate"]) == (401, "missing-token", "Bearer")
    sent = await _ask(api, "GET", path, headers=[(b"authorization", b"Bearer nonsense")])
    assert (sent.status, sent.code) == (401, "invalid-token")


async def test_documents_are_public(api: HttpEdge) -> None:
    """The document and its page need no token, and take only GET and no query."""
    assert json.loads((await _ask(api, "GET", "/openapi.json", headers=[])).body)["info"]["title"] == "Things"
    assert b"/openapi.json" in (await _ask(api, "GET", "/docs", headers=[])).body
    assert (await _ask(api, "POST", "/docs", headers=[])).headers["allow"] == "GET"
    assert (await _ask(api, "GET", "/docs", headers=[], query=b"a=1")).status == 422


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/v1/things", "GET, POST"),
        ("POST", "/v1/things/abc", "GET, PUT"),
        ("HEAD", "/v1/things/abc", "GET, PUT"),
        ("OPTIONS", "/v1/slow", "GET"),
        ("BREW", "/v1/slow", "GET"),
    ],
)
async def test_wrong_verb_is_told_all_right_ones(api: HttpEdge, method: str, path: str, allow: str) -> None:
    """405 lists every method of the path, whichever form its routes have."""
    sent = await _ask(api, method, path)
    assert (sent.status, sent.code, sent.headers["allow"]) == (405, "method-not-allowed", allow)


@pytest.mark.parametrize(
    "path", ["/v1/things/", "/v1//things", "/V1/things", "/v1/things/a/b", "/v1/thin%67s", "", "/"]
)
async def test_other_spelling_of_a_path_names_nothing(api: HttpEdge, path: str) -> None:
    """A slash too many, another case or percent-encoding is 404, without a redirect."""
    sent = await _ask(api, "GET", path)
    assert (sent.status, sent.code) == (404, "not-found")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/things", b"limit=1&secret=2"),
        ("/v1/things", b"limit=1&limit=1"),
        ("/v1/things/abc", b"limit=1"),
        ("/v1/things/abc", b"&"),
        ("/v1/things/abc", b"%FF=1"),
        ("/v1/things", b"limit=0"),
    ],
)
async def test_query_that_nobody_declared_is_refused(api: HttpEdge, path: str, query: bytes) -> None:
    """Unknown, doubled, malformed and out-of-range parameters are 422, and an unknown name is not repeated."""
    sent = await _ask(api, "GET", path, query=query)
    assert (sent.status, sent.code) == (422, "invalid-request")
    assert b"secret" not in sent.body


async def test_ordinary_route_refuses_queries_the_same_way(api: HttpEdge) -> None:
    """FastAPI's own validation has our shape, and unknown names are refused before it."""
    operator = _as("operator")
    assert (await _ask(api, "GET", "/v1/slow", query=b"size=2", headers=operator)).status == 200
    bad = await _ask(api, "GET", "/v1/slow", query=b"size=zero", headers=operator)
    assert json.loads(bad.body)["errors"] == [{"field": "query.size", "rule": "int_parsing"}]
    assert (await _ask(api, "GET", "/v1/slow", query=b"sizes=2", headers=operator)).status == 422


async def test_scope_is_checked_by_the_route(api: HttpEdge) -> None:
    """A member is refused where an operator is asked for, and the other way round."""
    for method, path, scope in (
        ("GET", "/v1/slow", "member"), ("PUT", "/v1/things/abc", "member"), ("POST", "/v1/things", "operator"),
    ):  # fmt: skip
        headers = _as(scope, (b"idempotency-key", b"key-00001"))
        sent = await _ask(api, method, path, b'{"name":"x"}', headers=headers)
        assert (sent.status, sent.code) == (403, "wrong-scope")


async def test_errors_become_their_answers(api: HttpEdge) -> None:
    """The service's table and the runtime's own are both in force."""
    sold, busy = await _ask(api, "GET", "/v1/things/sold"), await _ask(api, "GET", "/v1/things/busy")
    assert (sold.status, sold.code) == (409, "sold-out")
    assert (busy.status, busy.code, busy.headers["retry-after"]) == (503, "overloaded", "1")


async def test_document_declares_what_is_read_and_what_can_come_back(api: HttpEdge) -> None:
    """Parameters, bodies, the key's header, the token and the problem answers are all in the document."""
    document = json.loads((await _ask(api, "GET", "/openapi.json", headers=[])).body)
    assert document["security"] == [{"bearer": []}]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    things = document["paths"]["/v1/things"]
    assert {parameter["name"] for parameter in things["get"]["parameters"]} == {"limit", "cursor"}
    assert [parameter["name"] for parameter in things["post"]["parameters"]] == ["Idempotency-Key"]
    content: dict[str, Any] = things["post"]["requestBody"]["content"]
    assert content == {"application/json": {"schema": {"$ref": "#/components/schemas/NewThing"}}}
    assert document["components"]["schemas"]["NewThing"]["additionalProperties"] is False
    put = document["paths"]["/v1/things/{name}"]["put"]
    assert put["requestBody"]["required"] is True
    for operation in (*things.values(), *document["paths"]["/v1/things/{name}"].values()):
        for status in ("401", "422", "503", "504"):
            assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
    assert things["get"]["summary"] == "List Things"
    assert things["get"]["description"] == "List things."


def test_nested_router_and_doubled_route_are_refused(tmp_path: Path) -> None:
    """What the dispatcher could not serve is an error when the API is built."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    verifier = TokenVerifier(AuthSettings(secret_file=file))
    nested = build_router()
    nested.include_router(build_routes())
    for routers in ([nested], [build_routes(), build_routes()]):
        with pytest.raises(ValueError, match=r"router|twice"):
            build_api(title="x", settings=HttpSettings(), verifier=verifier, routers=routers)


async def test_other_protocols_are_not_served(api: HttpEdge) -> None:
    """A WebSocket or a lifespan event finds nobody, rather than an unguarded application."""
    with pytest.raises(RuntimeError, match="websocket"):
        await call(api, {"type": "websocket"})
