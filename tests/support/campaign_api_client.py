"""campaign_api without a socket: its whole API on a store, fake or real, and what a client needs to speak to it."""

from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jsonschema

from loyalty.campaign import Campaign
from runtime.api import build_api
from runtime.auth import Scope, TokenVerifier, sign_token
from runtime.http_edge import HttpEdge
from runtime.settings import AuthSettings, HttpSettings
from services.campaign_api.routes import DOMAIN_ERRORS, build_campaign_routers
from services.campaign_api.schema import CampaignAnswer, CampaignPageAnswer
from services.campaign_api.store import CampaignStore
from tests.support.campaign_sample import DAY
from tests.support.fake_campaign_store import FakeCampaignStore, this_millisecond

Json = dict[str, Any]  # Any: a JSON document
KEY = {"idempotency-key": "key-00001"}
PATH = "/v1/campaigns"
SECRET = "0123456789abcdef" * 2


class Api:
    """The API on a store, and the lines of its access log."""

    def __init__(self, store: CampaignStore, secret_file: Path) -> None:
        self.lines: list[MutableMapping[str, Any]] = []  # Any: a log field may be anything
        self.edge: HttpEdge = build_api(
            title="campaign_api",
            settings=HttpSettings(),
            verifier=TokenVerifier(AuthSettings(secret_file=secret_file)),
            routers=build_campaign_routers(store),
            domain_errors=DOMAIN_ERRORS,
            write_line=self.lines.append,
        )

    def client(self, subject: str, scope: Scope) -> httpx.AsyncClient:
        """Return a client with a token of its own."""
        token = sign_token(subject, scope, SECRET)
        transport = httpx.ASGITransport(app=self.edge)
        headers = {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(transport=transport, base_url="http://campaign-api", headers=headers)


def put(store: FakeCampaignStore, campaign: Campaign) -> Campaign:
    """Let a campaign be there."""
    store.campaigns[campaign.campaign_id] = campaign
    return campaign


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    """Assert that an answer is this problem."""
    assert (response.status_code, response.json().get("code")) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


def path_of(campaign: Campaign) -> str:
    """Return where the campaign is."""
    return f"{PATH}/{campaign.campaign_id}"


def match(*versions: int) -> dict[str, str]:
    """Return the header that names these versions."""
    return {"if-match": ", ".join(f'"{version}"' for version in versions)}


def campaign_body(**changes: object) -> Json:
    """Return the body of an order, changed as a test needs it."""
    now = this_millisecond()
    body = {"name": "Summer", "description": "Twice", "starts_at": now.isoformat(), "ends_at": (now + DAY).isoformat()}
    return {name: value for name, value in {**body, **changes}.items() if value is not ...}


def day_of(time: datetime) -> str:
    """Return the day of a time in UTC, as the API takes it."""
    return time.astimezone(UTC).date().isoformat()


async def check_answers(member: httpx.AsyncClient, operator: httpx.AsyncClient, campaign: Campaign) -> None:
    """Assert that one success of each route fits its declared schema and the class that schema is made from.

    The campaign is a draft, and there are at least two that members see.
    """
    document = (await member.get("/openapi.json")).json()
    one, path = f"{PATH}/{{campaign_id}}", path_of(campaign)
    version = {"if-match": (await operator.get(path)).headers["etag"]}
    answers = [
        (one, await operator.get(path)),
        (PATH, await operator.post(PATH, json=campaign_body(), headers={"idempotency-key": "key-of-the-check"})),
        (one, await operator.patch(path, json={"name": "Winter"}, headers=version)),
        (PATH, await member.get(f"{PATH}?limit=1")),
    ]
    for template, answer in answers:
        operation = document["paths"][template][answer.request.method.lower()]
        schema = operation["responses"][str(answer.status_code)]["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})
        model = CampaignPageAnswer if "items" in answer.json() else CampaignAnswer
        model.model_validate_json(answer.content, strict=True)
    assert len(answers[-1][1].json()["items"]) == 1
    assert answers[-1][1].json()["next_cursor"]
    deleted = await operator.delete(path, headers={"if-match": answers[2][1].headers["etag"]})
    responses = document["paths"][one]["delete"]["responses"]
    assert (deleted.status_code, deleted.content, "content" in responses["204"]) == (204, b"", False)
