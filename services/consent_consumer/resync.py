"""Make Salesforce hold what a collection holds, whatever it holds now: the way out when a stream's position is lost.

Every document is carried at the version of the snapshot in which it was read, so whatever Salesforce has of it is older
or the same; and the changes that come later, which the stream gives from that time on, are newer. What Salesforce has
beyond that, untouched and living, has lost its document meanwhile, and is marked as deleted; unless the document was
read and ended among the dead letters, which leaves its record as it was.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from bson import Timestamp

from patterns import Context
from runtime.backoff import Backoff
from runtime.logs import get_logger
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER, Change, Receiver
from services.consent_consumer.collection_scan import CollectionScan, ScanPosition
from services.consent_consumer.dead_letters import DeadLetters
from services.consent_consumer.errors import SnapshotTooOldError
from services.consent_consumer.lease import Lease
from services.consent_consumer.outcome import Outcome, Verdict
from services.consent_consumer.patience import Patience
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.record import DETAIL_OBJECT, EXTERNAL_ID, MASTER_OBJECT, Record, version
from services.consent_consumer.salesforce import FoundRecord, Salesforce
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import Position

_OBJECTS: Final = {CONSENT_MASTER: MASTER_OBJECT, CONSENT_DETAIL: DETAIL_OBJECT}
_REFUSED_IDS: Final = 5

_log = get_logger(__name__)


class Resync:
    """One reading of one collection; for one task.

    Args:
        stream: The collection's name.
        scan: Gives its documents.
        salesforce: Tells what it has beyond them.
        letters: Tell which of these are there all the same, and were refused.
        patience: Waits for all of them.
        retry: How often a mark is tried.
        documents_max: How many documents are read at once.
    """

    def __init__(
        self,
        stream: str,
        scan: CollectionScan,
        salesforce: Salesforce,
        letters: DeadLetters,
        patience: Patience,
        *,
        retry: RetrySettings,
        documents_max: int,
    ) -> None:
        self._stream = stream
        self._scan = scan
        self._salesforce = salesforce
        self._letters = letters
        self._patience = patience
        self._retry = retry
        self._documents_max = documents_max

    async def read(self, ctx: Context, ledger: StreamLedger, receiver: Receiver) -> Position:
        """Send every document on as a change, and return the place from which on the stream gives what came later.

        A snapshot that the database no longer has is replaced by a new one: the rest is read as it is then, and the
        first one's time counts for the place.

        Raises:
            ContextError: The context has ended.
        """
        first: Timestamp | None = None
        place: ScanPosition | None = None
        while True:
            try:
                page = await self._patience.ask(ctx, partial(self._scan.scan, self._stream, place, self._documents_max))
            except SnapshotTooOldError:
                _log.warning("The rest of a collection is read as it is now", stream=self._stream)
                place = None if place is None else ScanPosition(place.after_id, None)
                continue
            first = first or page.cluster_time
            if page.next is None:
                return Position(first, None)
            for document in page.documents:
                change = await self._change(ctx, ledger, document, page.cluster_time)
                await ctx.run(receiver.send(change))
            place = page.next

    async def mark_deleted(self, ctx: Context, position: Position, lease: Lease) -> int:
        """Mark the records of documents that were not read, and return how many were marked.

        A document that was read and is a dead letter of this reading is not gone. A mark is older than whatever was
        read, so it takes nothing back that a replay of such a letter stores meanwhile. A record that Salesforce will
        not have marked is told in the log and passed over, so that it holds up no other.

        Raises:
            ContextError: The context has ended.
            LeaseLostError: Another instance may be at work.
        """
        kind, at_version = _OBJECTS[self._stream], version(position.cluster_time)
        marked = 0
        after_id = ""
        while found := await self._patience.ask(ctx, partial(self._salesforce.find_older, kind, at_version, after_id)):
            after_id = found[-1].record_id
            external_ids = [record.external_id for record in found]
            dead = await self._patience.ask(
                ctx, partial(self._letters.find_dead, self._stream, external_ids, position.cluster_time)
            )
            gone = [record for record in found if record.external_id not in dead]
            marked += await self._mark(ctx, gone, at_version - 1, lease)
        return marked

    async def _mark(self, ctx: Context, found: Sequence[FoundRecord], at_version: int, lease: Lease) -> int:
        """Mark some records, those that could be marked later as often as any record is tried."""
        backoff = Backoff(self._retry.first_seconds, self._retry.most_seconds)
        record_ids = {external_id: record_id for record_id, external_id in found}
        left = list(record_ids)
        refused: dict[str, str] = {}
        marked = tries = 0
        while left:
            outcomes = await self._patience.ask(ctx, partial(self._send_marks, left, at_version, lease))
            tries += 1
            marked += sum(outcome.verdict is Verdict.STORED for outcome in outcomes)
            told, left = left, []
            for external_id, outcome in zip(told, outcomes, strict=True):
                if outcome.may_be_tried_again(tries, self._retry):
                    left.append(external_id)
                elif outcome.verdict not in (Verdict.STORED, Verdict.OLDER):
                    refused[record_ids[external_id]] = outcome.code
            if left:
                await ctx.run(asyncio.sleep(backoff.fail()))
        if refused:
            _log.error(
                "Salesforce will not have records marked as deleted",
                stream=self._stream,
                records=len(refused),
                codes=sorted(set(refused.values())),
                record_ids=list(refused)[:_REFUSED_IDS],
            )
        return marked

    async def _send_marks(self, external_ids: Sequence[str], at_version: int, lease: Lease) -> list[Outcome]:
        lease.check()
        records: list[Record] = [
            {EXTERNAL_ID: external_id, "Deleted__c": True, "Version__c": at_version} for external_id in external_ids
        ]
        return await self._salesforce.upsert(_OBJECTS[self._stream], records)

    async def _change(
        self,
        ctx: Context,
        ledger: StreamLedger,
        document: Mapping[str, Any],
        at: Timestamp,  # Any: BSON
    ) -> Change:
        event = {
            "_id": {"resync": at, "document": document["_id"]},
            "operationType": "resync",
            "clusterTime": at,
            "documentKey": {"_id": document["_id"]},
            "fullDocument": document,
        }
        return Change(await ctx.run(ledger.register(Position(at, None))), event)
