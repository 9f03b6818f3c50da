"""The API on the fake store, spoken to without a socket."""

from collections.abc import AsyncIterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.api import build_api
from runtime.auth import TokenVerifier, sign_token
from runtime.http_edge import HttpEdge
from runtime.settings import AuthSettings, HttpSettings
from services.coupon_api.routes import DOMAIN_ERRORS, build_coupon_router
from services.coupon_api.store import CouponStore
from tests.support.fake_coupon_store import FakeCouponStore

SECRET = "0123456789abcdef" * 2


class Api:
    """The API, its fake store, and the lines of its access log."""

    def __init__(self, store: CouponStore, secret_file: Path) -> None:
        self.lines: list[MutableMapping[str, Any]] = []  # Any: a log field may be anything
        self.edge: HttpEdge = build_api(
            title="coupon_api",
            settings=HttpSettings(),
            verifier=TokenVerifier(AuthSettings(secret_file=secret_file)),
            routers=[build_coupon_router(store)],
            domain_errors=DOMAIN_ERRORS,
            write_line=self.lines.append,
        )

    def client(self, subject: str, scope: str) -> httpx.AsyncClient:
        """Return a client with a token of its own."""
        token = sign_token(subject, "operator" if scope == "operator" else "member", SECRET)
        transport = httpx.ASGITransport(app=self.edge)
        headers = {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(transport=transport, base_url="http://coupon-api", headers=headers)


@pytest.fixture
def store() -> FakeCouponStore:
    """An empty store."""
    return FakeCouponStore()


@pytest.fixture
def api(store: FakeCouponStore, tmp_path: Path) -> Api:
    """The API on the empty store."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)
    return Api(store, secret_file)


@pytest.fixture
async def member(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """The member m-1."""
    async with api.client("m-1", "member") as client:
        yield client


@pytest.fixture
async def stranger(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """Another member, m-2."""
    async with api.client("m-2", "member") as client:
        yield client


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    """An operator."""
    async with api.client("ops-1", "operator") as client:
        yield client
