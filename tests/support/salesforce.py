"""A client of the Salesforce sandbox that shows what comes back as it is, and records to send to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sandbox.salesforce import ConnectedApp, Salesforce, SalesforceSettings, open_salesforce

MASTER = "ConsentMaster__c"
DETAIL = "ConsentDetail__c"
APP = ConnectedApp("consents", "a-secret-of-the-tests")
VERSION = "v60.0"

Content = dict[str, Any]  # Any: what JSON can hold


def master(external_id: str, version: int = 1, **fields: object) -> Content:
    """Return the fields of a master that nothing is wrong with, with some of them changed."""
    return {
        "ExternalId__c": external_id,
        "MemberId__c": "m-1",
        "Status__c": "granted",
        "PolicyVersion__c": "2026-1",
        "Channel__c": "app",
        "ChangedAt__c": "2026-11-28T10:00:00Z",
        "Deleted__c": False,
        "Version__c": version,
        **fields,
    }


def detail(external_id: str, of: str, version: int = 1, **fields: object) -> Content:
    """Return the fields of a detail of this master that nothing is wrong with, with some of them changed."""
    return {
        "ExternalId__c": external_id,
        "Master__r": {"ExternalId__c": of},
        "Purpose__c": "sms",
        "Granted__c": True,
        "ChangedAt__c": "2026-11-28T10:00:00.123+0000",
        "Deleted__c": False,
        "Version__c": version,
        **fields,
    }


@dataclass
class SalesforceClient:
    """Call the sandbox as a client of Salesforce does; nothing is repeated, and no token is renewed by itself."""

    http: httpx.AsyncClient
    token: str = ""

    async def ask_token(self, **form: str) -> httpx.Response:
        """Ask for a token, with these fields of the form changed."""
        given = {
            "grant_type": "client_credentials",
            "client_id": APP.client_id,
            "client_secret": APP.client_secret,
            **form,
        }
        return await self.http.post("/services/oauth2/token", data=given)

    async def log_in(self) -> None:
        """Get a token and use it from now on."""
        response = await self.ask_token()
        assert response.status_code == 200, response.text
        self.token = response.json()["access_token"]

    async def upsert(self, object_type: str, *records: Content, all_or_none: bool = False) -> httpx.Response:
        """Upsert a collection of records of one object."""
        sent = [{"attributes": {"type": object_type}, **record} for record in records]
        return await self.patch(
            f"composite/sobjects/{object_type}/ExternalId__c", {"allOrNone": all_or_none, "records": sent}
        )

    async def query(self, text: str) -> httpx.Response:
        """Ask for the first page of a query."""
        return await self.get(f"/services/data/{VERSION}/query", q=text)

    async def get(self, path: str, **query: str) -> httpx.Response:
        """Send a GET with a token; a path that an answer named is taken as it is."""
        return await self.http.get(path, params=query or None, headers={"authorization": f"Bearer {self.token}"})

    async def patch(
        self, path: str, content: object, *, version: str = VERSION, headers: Content | None = None
    ) -> httpx.Response:
        """Send a PATCH with a token."""
        own = {"authorization": f"Bearer {self.token}"} | (headers or {})
        return await self.http.patch(f"/services/data/{version}/{path}", json=content, headers=own)


def codes(response: httpx.Response) -> list[str | None]:
    """Return of each record's result its first status code; None for one that was stored."""
    assert response.status_code == 200, response.text
    return [_code(result) for result in response.json()]


def _code(result: Content) -> str | None:
    errors: Sequence[Content] = result["errors"]
    assert result["success"] is not bool(errors), result
    return errors[0]["statusCode"] if errors else None


def sandbox_settings(directory: Path, **settings: Any) -> SalesforceSettings:  # noqa: ANN401 - settings
    """Return the settings of a sandbox whose log is in this directory."""
    return SalesforceSettings(**{"log": directory / "applied.log", "app": APP, **settings})


@asynccontextmanager
async def open_client(url: str, *, log_in: bool = True) -> AsyncIterator[SalesforceClient]:
    """Open a client with a token."""
    # Plain HTTP on loopback: a TLS context would cost more than the calls.
    async with httpx.AsyncClient(base_url=url, timeout=20, verify=False) as http:  # noqa: S501
        client = SalesforceClient(http)
        if log_in:
            await client.log_in()
        yield client


@asynccontextmanager
async def open_sandbox(
    directory: Path,
    **settings: Any,  # noqa: ANN401 - settings
) -> AsyncIterator[tuple[Salesforce, SalesforceClient]]:
    """Serve a sandbox whose log is in this directory, with these settings, and open a client of it."""
    async with (
        open_salesforce(sandbox_settings(directory, **settings)) as salesforce,
        open_client(salesforce.url) as client,
    ):
        yield salesforce, client
