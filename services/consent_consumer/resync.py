"""Make Salesforce hold what a collection holds, whatever it holds now: the way out when a stream's position is lost.

Every document is carried at the version of the snapshot in which it was read, so whatever Salesforce has of it is older
or the same; and the changes that come later, which the stream gives from that time on, are newer. What Salesforce has
beyond that, untouched and living, has lost its document meanwhile, and is marked as deleted.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from bson import Timestamp

from patterns import Context
from runtime.logs import get_logger
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER, Change, Receiver
from services.consent_consumer.collection_scan import CollectionScan, ScanPosition
from services.consent_consumer.errors import SalesforceUnavailable, SnapshotTooOldError
from services.consent_consumer.lease import Lease
from services.consent_consumer.outcome import Verdict
from services.consent_consumer.patience import Patience
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.record import DETAIL_OBJECT, EXTERNAL_ID, MASTER_OBJECT, Record, version
from services.consent_consumer.salesforce import Salesforce
from services.consent_consumer.salesforce_pause import DEPENDENCY
from services.consent_consumer.store import Position

_OBJECTS: Final = {CONSENT_MASTER: MASTER_OBJECT, CONSENT_DETAIL: DETAIL_OBJECT}

_log = get_logger(__name__)


class Resync:
    """One reading of one collection; for one task.

    Args:
        stream: The collection's name.
        scan: Gives its documents.
        salesforce: Tells what it has beyond them.
        patience: Waits for either.
        documents_max: How many documents are read at once.
    """

    def __init__(
        self,
        stream: str,
        scan: CollectionScan,
        salesforce: Salesforce,
        patience: Patience,
        *,
        documents_max: int,
    ) -> None:
        self._stream = stream
        self._scan = scan
        self._salesforce = salesforce
        self._patience = patience
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
        """Mark the records that the reading did not touch, and return how many there were.

        Raises:
            ContextError: The context has ended.
            LeaseLostError: Another instance may be at work.
        """
        at_version = version(position.cluster_time)
        marked = 0
        while found := await self._patience.ask(ctx, partial(self._mark_some, at_version, lease)):
            marked += found
        return marked

    async def _mark_some(self, at_version: int, lease: Lease) -> int:
        kind = _OBJECTS[self._stream]
        found = await self._salesforce.find_older(kind, at_version)
        if not found:
            return 0
        lease.check()
        records: list[Record] = [
            {EXTERNAL_ID: external_id, "Deleted__c": True, "Version__c": at_version} for external_id in found
        ]
        outcomes = await self._salesforce.upsert(kind, records)
        marked = sum(outcome.verdict in (Verdict.STORED, Verdict.OLDER) for outcome in outcomes)
        if not marked:
            raise SalesforceUnavailable(DEPENDENCY, f"took no mark of a deletion: {outcomes[0].code}")
        return marked

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
