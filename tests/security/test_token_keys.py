"""A service that verifies by a public key takes no token that was made with anything but the private one."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from deploy.settings import MigrateSettings
from sandbox.servers import MongoServer, PostgresServer
from sandbox.servers.address import free_port
from tests.support.campaign_api_process import mongo_variables
from tests.support.mongo_settings import open_mongo_database
from tests.support.service_process import HttpServiceProcess, open_service, postgres_variables

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS: Final = {"coupon_api": "/v1/members/m-1/coupons", "campaign_api": "/v1/campaigns"}
NOW: Final = int(time.time())
CLAIMS: Final[dict[str, Any]] = {"sub": "m-1", "scope": "member", "iat": NOW, "exp": NOW + 86_400}


class Keys:
    """The provider's pair, and an attacker's own."""

    def __init__(self) -> None:
        self.ours = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.theirs = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.curve = ec.generate_private_key(ec.SECP256R1())
        self.public_pem = _public_pem(self.ours.public_key())


def _public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _part(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _by_hash(key: bytes, algorithm: str = "HS256") -> str:
    """Sign with any bytes as a secret, which libraries refuse to do when they see that it is a public key."""
    header = json.dumps({"alg": algorithm, "typ": "JWT"}).encode()
    text = b".".join([_part(header), _part(json.dumps(CLAIMS).encode())])
    return b".".join([text, _part(hmac.digest(key, text, hashlib.sha256))]).decode()


def _by_own_key(keys: Keys, **header: object) -> str:
    return jwt.encode(CLAIMS, keys.theirs, algorithm="RS256", headers=dict(header))


def _own_jwk(keys: Keys) -> dict[str, object]:
    content = jwt.algorithms.RSAAlgorithm.to_jwk(keys.theirs.public_key())
    return dict(json.loads(content))


FORGED: Final[dict[str, Callable[[Keys], str]]] = {
    "public key as a secret": lambda keys: _by_hash(keys.public_pem),
    "public key as a secret, without its line end": lambda keys: _by_hash(keys.public_pem.rstrip()),
    "public key as a secret, said to be RS256": lambda keys: _by_hash(keys.public_pem, "RS256"),
    "empty secret": lambda _: _by_hash(b""),
    "alg none": lambda _: _by_hash(b"", "none").rpartition(".")[0] + ".",
    "another private key": _by_own_key,
    "another key that the token brings itself": lambda keys: _by_own_key(keys, jwk=_own_jwk(keys)),
    "another key at an address in the token": lambda keys: _by_own_key(keys, jku="http://127.0.0.1:9/keys"),
    "another certificate at an address": lambda keys: _by_own_key(keys, x5u="http://127.0.0.1:9/certificate"),
    "key id that is a path": lambda keys: _by_own_key(keys, kid="../../dev/null"),
    "longer hash": lambda keys: jwt.encode(CLAIMS, keys.ours, algorithm="RS512"),
    "another padding": lambda keys: jwt.encode(CLAIMS, keys.ours, algorithm="PS256"),
    "a curve": lambda keys: jwt.encode(CLAIMS, keys.curve, algorithm="ES256"),
    "expired": lambda keys: jwt.encode(CLAIMS | {"exp": NOW - 3_600}, keys.ours, algorithm="RS256"),
    "not yet valid": lambda keys: jwt.encode(CLAIMS | {"nbf": NOW + 3_600}, keys.ours, algorithm="RS256"),
}


@pytest.fixture(scope="module")
def keys() -> Keys:
    """Keys for all tests of the module."""
    return Keys()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PATHS)
async def client(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    mongo: MongoServer,
    databases: MigrateSettings,
    keys: Keys,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of each API in turn, which knows the public key alone, at a page that a member may read."""
    service: str = request.param
    directory: Path = tmp_path_factory.mktemp("keys")
    file = directory / "public.pem"
    file.write_bytes(keys.public_pem)
    variables = {
        "AUTH__ALGORITHM": "RS256",
        "AUTH__PUBLIC_KEY_FILE": str(file),
        "HTTP__PORT": str(free_port()),
        "ADMIN__PORT": str(free_port()),
    }
    async with AsyncExitStack() as stack:
        if service == "coupon_api":
            variables |= postgres_variables(postgres, databases.coupons_database, service)
        else:
            variables |= mongo_variables(await stack.enter_async_context(open_mongo_database(mongo)))
        process = await stack.enter_async_context(open_service(HttpServiceProcess, service, directory, variables))
        await process.wait_readiness(200)
        url = f"http://127.0.0.1:{process.port}{PATHS[service]}"
        client = httpx.AsyncClient(base_url=url, verify=False)  # noqa: S501 - plain HTTP
        yield await stack.enter_async_context(client)


async def _get(client: httpx.AsyncClient, token: str) -> httpx.Response:
    page = str(client.base_url).rstrip("/")  # httpx ends a base with a stroke, which would be another path
    return await client.get(page, headers={"authorization": f"Bearer {token}"})


async def test_token_of_the_private_key_is_taken(client: httpx.AsyncClient, keys: Keys) -> None:
    """The tests below refuse the forgery, not the service's whole traffic."""
    assert (await _get(client, jwt.encode(CLAIMS, keys.ours, algorithm="RS256"))).status_code == 200


@pytest.mark.parametrize("name", FORGED)
async def test_forged_token_is_refused(client: httpx.AsyncClient, keys: Keys, name: str) -> None:
    """The answer is 401, twice the same, and does not say which check failed."""
    token = FORGED[name](keys)
    for _ in range(2):
        answer = await _get(client, token)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid-token")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "detail" not in answer.json()
