"""The page: fixed files, into which nothing that a record holds ever comes unescaped."""

import re
from pathlib import Path

import pytest

from sandbox.salesforce import Fault, FaultKind
from tests.support.salesforce import MASTER, master, open_sandbox

PATHS = ("/", "/page.js", "/page.css")
HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>"


async def test_nothing_that_a_record_or_a_fault_holds_is_in_the_page(tmp_path: Path) -> None:
    """The files are byte by byte the same, whatever is stored; what the script reads is JSON and nothing else."""
    async with open_sandbox(tmp_path) as (salesforce, client):
        before = [(await client.http.get(path)).content for path in PATHS]
        await client.upsert(MASTER, master(HOSTILE, MemberId__c="<b>m-1</b>"))
        salesforce.faults.switch_on(Fault(kind=FaultKind.RECORD, code="X", external_ids=(HOSTILE,)))
        assert [(await client.http.get(path)).content for path in PATHS] == before
        for path in (f"records?object_type={MASTER}", "faults", "applied"):
            response = await client.http.get(f"/control/{path}")
            assert response.headers["content-type"] == "application/json;charset=UTF-8"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert HOSTILE in response.text


def test_the_script_makes_text_of_what_it_reads() -> None:
    """It uses none of the ways in which a text becomes HTML or code."""
    script = Path("sandbox/salesforce/page.js").read_text()
    ways = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "createContextualFragment", "DOMParser")
    assert [way for way in (*ways, "srcdoc", "eval(", "Function(", "javascript:") if way in script] == []
    assert "textContent" in script


async def test_the_browser_is_told_to_refuse_everything_else(tmp_path: Path) -> None:
    """The policy allows this server's own script, style and requests, no inline code, no frame, no text as HTML."""
    async with open_sandbox(tmp_path) as (_, client):
        for path in PATHS:
            headers = (await client.http.get(path)).headers
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["require-trusted-types-for"] == "'script'"
            assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
            assert headers["x-content-type-options"] == "nosniff"


async def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    """No file names another server, and no element of the page bears code or style of its own."""
    async with open_sandbox(tmp_path) as (_, client):
        texts = [(await client.http.get(path)).text for path in PATHS]
    assert all(re.findall(r"https?://|@import|url\(", text) == [] for text in texts)
    assert re.findall(r"\son\w+=|style=|<script(?! src=\"/page\.js\")", texts[0]) == []


async def test_every_field_of_the_page_has_a_label(tmp_path: Path) -> None:
    """Whoever uses it by keyboard or hears it read is told what each field is."""
    async with open_sandbox(tmp_path) as (_, client):
        text = (await client.http.get("/")).text
    fields = re.findall(r"<(?:input|select|textarea)\b", text)
    labelled = re.findall(r"<label[^>]*>(?:(?!</label>).)*?<(?:input|select|textarea)\b", text, re.DOTALL)
    assert len(fields) == len(labelled) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_the_page_can_only_be_looked_at(tmp_path: Path, method: str) -> None:
    """Anything but GET and HEAD is 405, and a path that is none of the page's 404."""
    async with open_sandbox(tmp_path) as (_, client):
        assert (await client.http.request(method, "/")).status_code == 405
        assert (await client.http.get("/page.html")).status_code == 404
        assert (await client.http.head("/")).status_code == 200
