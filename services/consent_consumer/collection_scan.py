"""Read a collection whole, in pages that all see it as it was at one time.

A cursor that stays open would do the same until the first error. Here each page is a question of its own that names
the time, so a page whose answer was lost is asked for again, and the scan goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bson import Timestamp
from pymongo.errors import OperationFailure

from runtime.mongo import MongoDatabase
from services.consent_consumer.errors import SnapshotTooOldError
from services.consent_consumer.foreign_document import FIELD_BY_FIELD
from services.consent_consumer.store import waiting_helps

_SNAPSHOT_GONE: Final = frozenset({239, 246})


@dataclass(frozen=True, slots=True)
class ScanPosition:
    """Where a scan goes on: behind a document, in the snapshot of a cluster time.

    With None for the time it goes on in a new snapshot. A scan of several snapshots is whole as well, provided that
    changes are read from the first one's time on.
    """

    after_id: Any  # BSON of any type
    cluster_time: Timestamp | None


@dataclass(frozen=True, slots=True)
class ScanPage:
    """Documents in the order of their ids, as they were at one cluster time; without documents it is the end."""

    documents: Sequence[Mapping[str, Any]]  # BSON of any type
    cluster_time: Timestamp
    next: ScanPosition | None


class CollectionScan(Protocol):
    """What a resync needs of the collections."""

    async def scan(self, collection: str, position: ScanPosition | None, limit: int) -> ScanPage:
        """Return at most `limit` documents from behind a position on, or from the beginning.

        A page may have fewer than `limit`, since it is an answer of 16 MB at most; only an empty one is the end.

        Raises:
            SnapshotTooOldError: The database keeps the snapshot no longer (300 s, unless it was told otherwise).
        """


class MongoCollectionScan:
    """The collections of a database; see `CollectionScan`, and `MongoConsentStore` for what a call may raise."""

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    async def scan(self, collection: str, position: ScanPosition | None, limit: int) -> ScanPage:
        """See `CollectionScan`."""
        at = None if position is None else position.cluster_time
        cursor, now = await self._find(collection, position, at, limit)
        if at is None and "atClusterTime" not in cursor:
            # The collection is not there, and the answer's own time may be later than the look. At that time it has
            # to be asked for again: then what was made in between is missing at that time, or seen.
            at = now
            cursor, _ = await self._find(collection, position, at, limit)
        documents = cursor["firstBatch"]
        cluster_time = cursor.get("atClusterTime", at)
        following = ScanPosition(documents[-1]["_id"], cluster_time) if documents else None
        return ScanPage(documents, cluster_time, following)

    async def _find(
        self, collection: str, position: ScanPosition | None, at: Timestamp | None, limit: int
    ) -> tuple[Mapping[str, Any], Timestamp]:  # Any: BSON
        """Return the answer's cursor, which has no more than this, and the answer's own time."""
        # A comparison in a plain filter ends with the type of `after_id`, and leaves ids of the other types out.
        behind = {} if position is None else {"$expr": {"$gt": ["$_id", {"$literal": position.after_id}]}}
        command = {  # a command, since the driver keeps the time of a snapshot to itself
            "find": collection,
            "filter": behind,
            "sort": {"_id": 1},
            "limit": limit,
            "batchSize": limit,
            "singleBatch": True,
            "readConcern": {"level": "snapshot"} if at is None else {"level": "snapshot", "atClusterTime": at},
        }
        with waiting_helps(self._database):
            try:
                answer = await self._database.client[self._database.name].command(command, codec_options=FIELD_BY_FIELD)
            except OperationFailure as error:
                if error.code not in _SNAPSHOT_GONE:
                    raise
                raise SnapshotTooOldError(f"the database no longer has {collection} as it was at {at}") from error
        return answer["cursor"], answer["operationTime"]
