"""The reference: a bare client fills the Salesforce sandbox with full calls, one after another on two connections.

Run as a program with a consumer's settings in its environment: `python -m tests.benchmarks.bare_upsert CONSENTS
DETAILS` upserts as many records as there are changes in such a backlog, all of them made before the clock starts, and
prints how many records there were and how many seconds it took.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

import orjson
from bson import ObjectId

from loyalty.consent import ConsentChannel, ConsentDetail, ConsentMaster, ConsentPurpose, ConsentStatus
from services.consent_consumer.record import (
    DETAIL_OBJECT,
    EXTERNAL_ID,
    MASTER_OBJECT,
    Record,
    detail_record,
    master_record,
)
from services.consent_consumer.salesforce import RECORDS_PER_CALL_MAX
from services.consent_consumer.settings import ConsentConsumerSettings

CONNECTIONS = 2
_REFUSED = b'"success":false'


class _Connection:
    """One keep-alive connection; a request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    async def send(self, method: str, path: str, media_type: str, content: bytes, token: str = "") -> bytes:
        """Send a request and return the body of its answer, which must be 200."""
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}", f"authorization: Bearer {token}"]
        lines += [f"content-type: {media_type}", f"content-length: {len(content)}", "", ""]
        self._writer.write("\r\n".join(lines).encode() + content)
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, _, _ = head.partition(b"\r")
        if status.split()[1:2] != [b"200"]:
            raise RuntimeError(f"answered {status!r}")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
        return await self._reader.readexactly(int(length))

    def close(self) -> None:
        self._writer.close()


def calls(object_type: str, records: list[Record]) -> Iterator[tuple[str, bytes]]:
    """Yield path and body of each call."""
    for first in range(0, len(records), RECORDS_PER_CALL_MAX):
        part = records[first : first + RECORDS_PER_CALL_MAX]
        sent = [{"attributes": {"type": object_type}, **record} for record in part]
        path = f"/services/data/v60.0/composite/sobjects/{object_type}/{EXTERNAL_ID}"
        yield path, orjson.dumps({"allOrNone": False, "records": sent})


def make_calls(consents: int, details: int) -> list[tuple[str, bytes]]:
    """Make the calls for so many consents with so many details each: all created, and then all updated."""
    now = datetime.now(UTC)
    policy, channel = "2026-1", ConsentChannel.APP
    purposes = list(ConsentPurpose)[:details]
    ids = [ObjectId() for _ in range(consents)]
    detail_ids = [[ObjectId() for _ in purposes] for _ in ids]
    found: list[tuple[str, bytes]] = []
    for version, (status, is_granted) in enumerate(((ConsentStatus.GRANTED, True), (ConsentStatus.WITHDRAWN, False))):
        masters = [
            master_record(ConsentMaster(each, f"m-{number}", status, policy, channel, now), version)
            for number, each in enumerate(ids)
        ]
        of_masters = [
            detail_record(ConsentDetail(each, master_id, purpose, is_granted, now), version)
            for master_id, own in zip(ids, detail_ids, strict=True)
            for each, purpose in zip(own, purposes, strict=True)
        ]
        found += [*calls(MASTER_OBJECT, masters), *calls(DETAIL_OBJECT, of_masters)]
    return found


async def fill(consents: int, details: int) -> tuple[int, float]:
    """Send all calls, and return how many records they had and the seconds."""
    settings = ConsentConsumerSettings().salesforce
    url = urlsplit(settings.url)
    connections = [
        _Connection(*await asyncio.open_connection(url.hostname, url.port), url.netloc) for _ in range(CONNECTIONS)
    ]
    form = {
        "grant_type": "client_credentials",
        "client_id": settings.client_id,
        "client_secret": settings.client_secret_file.read_text(),
    }
    answer = await connections[0].send(
        "POST", "/services/oauth2/token", "application/x-www-form-urlencoded", urlencode(form).encode()
    )
    token = orjson.loads(answer)["access_token"]
    made = iter(make_calls(consents, details))

    async def send_calls(connection: _Connection) -> None:
        for path, body in made:
            if _REFUSED in await connection.send("PATCH", path, "application/json", body, token):
                raise RuntimeError("a record was refused")

    began = time.perf_counter()
    await asyncio.gather(*map(send_calls, connections))
    took = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return consents * (1 + details) * 2, took


if __name__ == "__main__":
    import uvloop

    print(*uvloop.run(fill(int(sys.argv[1]), int(sys.argv[2]))))
