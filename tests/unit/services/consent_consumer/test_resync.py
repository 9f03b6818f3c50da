"""What a resync marks as deleted in Salesforce, and what it makes of records that will not be marked."""

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from bson import Timestamp
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from patterns import background
from runtime.http_connection import HttpAnswer
from services.consent_consumer.change_stream import CONSENT_MASTER
from services.consent_consumer.dead_letters import DeadLetter, letter_id_of
from services.consent_consumer.lease import Lease
from services.consent_consumer.metrics import ConsentMetrics, StreamMetrics
from services.consent_consumer.patience import Patience
from services.consent_consumer.record import version
from services.consent_consumer.resync import Resync
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import Position
from tests.support.consent_letter_contract import some_letter
from tests.support.fake_consent_store import FakeCollectionScan, FakeDeadLetters
from tests.unit.services.consent_consumer.salesforce_fake import (
    STORED,
    FakeSalesforce,
    answered,
    fake_settings,
    open_fake,
    refused,
    sent_records,
)

AT = Timestamp(2_000, 1)
RETRY = RetrySettings(first_seconds=0.01, most_seconds=0.01, later_tries=3, unknown_tries=2)


class Held:
    """The records that Salesforce holds, each older than the resync; it answers queries and calls.

    Attributes:
        external_ids: of each, by its own id.
        codes: what each of these external ids is refused for, one code a try, and no more behind the last one.
        marked: those that are marked as deleted.
        tries: how often each was sent.
        versions: of the marks.
    """

    def __init__(self, *external_ids: str) -> None:
        self.external_ids = {f"a{number:014}AAA": each for number, each in enumerate(external_ids)}
        self.codes: dict[str, list[str]] = {}
        self.marked: set[str] = set()
        self.tries: Counter[str] = Counter()
        self.versions: set[int] = set()

    def answer(self, request: httpx.Request) -> HttpAnswer:
        """Answer as Salesforce would."""
        return self._found(request.url.params["q"]) if request.method == "GET" else self._changed(request)

    def _found(self, query: str) -> HttpAnswer:
        assert f"Version__c < {version(AT)}" in query
        behind = re.search("Id > '(.*?)'", query)
        living = [
            {"Id": record_id, "ExternalId__c": external_id}
            for record_id, external_id in sorted(self.external_ids.items())
            if external_id not in self.marked and (behind is None or record_id > behind[1])
        ]
        return answered(200, {"records": living[:200]})

    def _changed(self, request: httpx.Request) -> HttpAnswer:
        self.versions |= {record["Version__c"] for record in sent_records(request)}
        sent = [record["ExternalId__c"] for record in sent_records(request)]
        owners = Counter(self.external_ids.values())
        if any(owners[external_id] > 1 for external_id in sent):
            return answered(300, [])
        return answered(200, [self._result(external_id) for external_id in sent])

    def _result(self, external_id: str) -> dict[str, Any]:
        self.tries[external_id] += 1
        if self.codes.get(external_id):
            return refused(self.codes[external_id].pop(0))
        self.marked.add(external_id)
        return STORED


async def mark(held: Held, directory: Path, *letters: DeadLetter) -> int:
    """Let a resync that has read nothing, or buried what it read, mark what is held."""
    kept = FakeDeadLetters()
    await kept.bury(letters)
    lease = Lease(1, asyncio.get_running_loop().time() + 3_600)
    metrics = StreamMetrics(ConsentMetrics(CollectorRegistry()), CONSENT_MASTER)
    try:
        async with open_fake(FakeSalesforce(held.answer), fake_settings(directory)) as salesforce:
            patience = Patience(metrics, RETRY)
            resync = Resync(
                CONSENT_MASTER, FakeCollectionScan(), salesforce, kept, patience, retry=RETRY, documents_max=10
            )
            return await resync.mark_deleted(background(), Position(AT, None), lease)
    finally:
        lease.close()


async def test_records_of_one_external_id_are_told_and_hold_up_no_other(tmp_path: Path) -> None:
    """Salesforce cannot tell them apart (300): they stay as they are, and everything else is marked."""
    held = Held("s:a", "s:two", "s:two", "s:b")
    with capture_logs() as logs:
        assert await mark(held, tmp_path) == 2
    assert held.marked == {"s:a", "s:b"}
    [told] = [line for line in logs if line["event"] == "Salesforce will not have records marked as deleted"]
    assert (told["log_level"], told["records"], told["codes"]) == ("error", 1, ["DUPLICATE_EXTERNAL_ID"])
    assert told["record_ids"] == ["a00000000000002AAA"]


async def test_a_page_of_refused_records_hides_none_behind_it(tmp_path: Path) -> None:
    """Each is asked once, and told by Salesforce's own id; 200 others are marked."""
    names = [f"s:{number}" for number in range(400)]
    held = Held(*names)
    held.codes = {name: ["FIELD_CUSTOM_VALIDATION_EXCEPTION"] * 9 for name in names[:200]}
    assert await mark(held, tmp_path) == 200
    assert held.marked == set(names[200:])
    assert set(held.tries.values()) == {1}


async def test_a_mark_that_may_be_taken_later_is_tried_again_and_not_for_ever(tmp_path: Path) -> None:
    """As often as any record: a locked row three times by these settings, a code that nobody knows twice."""
    held = Held("s:locked", "s:locked on", "s:odd", "s:fine")
    held.codes = {
        "s:locked": ["UNABLE_TO_LOCK_ROW"] * 2,
        "s:locked on": ["UNABLE_TO_LOCK_ROW"] * 9,
        "s:odd": ["NOBODY_KNOWS"] * 9,
    }
    with capture_logs() as logs:
        assert await mark(held, tmp_path) == 2
    assert held.marked == {"s:locked", "s:fine"}
    assert held.tries == {"s:locked": 3, "s:locked on": 3, "s:odd": 2, "s:fine": 1}
    assert [line["codes"] for line in logs if "codes" in line] == [["NOBODY_KNOWS", "UNABLE_TO_LOCK_ROW"]]


async def test_a_document_that_was_read_and_is_a_dead_letter_is_not_gone(tmp_path: Path) -> None:
    """Its record stays as it was; a letter of an earlier time says nothing of this reading."""
    held = Held("s:gone", "s:refused", "s:refused later", "s:refused before")
    letters = [
        _letter("s:refused", AT),
        _letter("s:refused later", Timestamp(AT.time + 1, 1)),
        _letter("s:refused before", Timestamp(AT.time - 1, 1)),
    ]
    assert await mark(held, tmp_path, *letters) == 2
    assert held.marked == {"s:gone", "s:refused before"}


async def test_a_mark_is_older_than_what_the_reading_brought(tmp_path: Path) -> None:
    """A letter that is replayed between two questions brings its document at the reading's version, which stays."""
    held = Held("s:gone")
    await mark(held, tmp_path)
    assert held.versions == {version(AT) - 1}


def _letter(external_id: str, at: Timestamp) -> DeadLetter:
    event = {"_id": {"resync": at, "document": external_id}, "clusterTime": at}
    return some_letter(event=event, external_id=external_id, letter_id=letter_id_of(CONSENT_MASTER, event["_id"]))
