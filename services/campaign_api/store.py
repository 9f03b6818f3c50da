"""Keep campaigns in MongoDB: the only file of this service with its queries.

Writes are acknowledged by a majority, and reads see only what a majority has. Time is the database's clock alone
(`$$NOW`). A read is one round trip. A change reads the campaign, lets the rules of `loyalty.campaign` decide, and
writes under the condition that the version is still the one that was read: whoever loses that race decides anew.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure

from loyalty.campaign import (
    FIRST_VERSION,
    Campaign,
    CampaignChanges,
    CampaignStatus,
    change,
    check_deletable,
    check_version,
    is_done,
)
from loyalty.errors import CampaignNotFoundError
from runtime.errors import IdempotencyKeyReusedError, RequestInProgressError, TransactionContended
from runtime.mongo import Collection, Document, MongoDatabase, Session
from runtime.mongo_error import DEPENDENCY, is_contended
from runtime.stored_answer import IdempotencyKey, StoredAnswer
from services.campaign_api.campaign_view import CampaignView, encode, view_of

CRASH_POINTS: Final = ("after-insert", "after-key", "after-commit", "after-change", "after-delete")
CAMPAIGNS: Final = "campaigns"
KEYS: Final = "idempotency_keys"

INDEXES: Final = {
    CAMPAIGNS: [
        IndexModel(
            [("starts_at", DESCENDING), ("_id", DESCENDING), ("status", ASCENDING), ("ends_at", ASCENDING)],
            name="by_start",
        ),
        IndexModel(
            [("status", ASCENDING), ("starts_at", DESCENDING), ("_id", DESCENDING), ("ends_at", ASCENDING)],
            name="by_status",
        ),
    ],
    # The time stands in the document, not in the index, so another setting needs no other index.
    KEYS: [IndexModel([("expires_at", ASCENDING)], name="by_expiry", expireAfterSeconds=0)],
}

_NEWEST_FIRST: Final = [("starts_at", DESCENDING), ("_id", DESCENDING)]
_CONTENT: Final = ("name", "description", "status", "starts_at", "ends_at", "created_at", "updated_at", "version")
_WITH_NOW: Final = {**dict.fromkeys(_CONTENT, 1), "now": "$$NOW"}
_TRIES: Final = 5


class PagePosition(NamedTuple):
    """The last campaign of a page; the next page begins behind it."""

    starts_at: datetime
    campaign_id: str


class TimeSpan(NamedTuple):
    """From `begin` on, and before `end`."""

    begin: datetime
    end: datetime


class CampaignFilter(NamedTuple):
    """Which campaigns are wanted: of these statuses, and with dates that meet this span, if one is given."""

    statuses: AbstractSet[CampaignStatus]
    on: TimeSpan | None


class CampaignOrder(NamedTuple):
    """A campaign that an operator wants to exist, under an id that was made for it."""

    campaign_id: str
    name: str
    description: str
    starts_at: datetime
    ends_at: datetime


class CampaignStore(Protocol):
    """What the routes need of a store; every call is one step that happens whole or not at all.

    Where `versions` are asked for, they are those that the caller has seen; None stands for whatever there is.
    """

    async def find_campaign(self, campaign_id: str) -> CampaignView | None:
        """Return the campaign, or None when there is none of that id."""

    async def list_campaigns(
        self, wanted: CampaignFilter, limit: int, after: PagePosition | None
    ) -> list[CampaignView]:
        """Return at most `limit` of the wanted campaigns, newest start first, from behind `after` on.

        A campaign that appears or goes while somebody pages never makes another one appear twice or not at all.
        """

    async def create_campaign(self, order: CampaignOrder, key: IdempotencyKey) -> StoredAnswer:
        """Create a draft and keep its answer under the key, or return the answer that is kept there.

        Raises:
            RequestInProgressError: Another call holds the key now.
            IdempotencyKeyReusedError: The key was used for another body.
        """

    async def change_campaign(
        self, campaign_id: str, versions: AbstractSet[int] | None, changes: CampaignChanges
    ) -> CampaignView:
        """Change a campaign and return it as it is then; what is as wanted already is returned, and not written.

        A change that was made at one of the versions may be asked for again, as long as it is the last one: it is
        returned as the first call left it (`loyalty.campaign.is_done`).

        Raises:
            CampaignNotFoundError: There is none of that id.
            StaleCampaignError: It is at none of the versions.
            CampaignTransitionError, CampaignDatesFixedError, CampaignDatesContradictError: as in
                `loyalty.campaign.change`.
        """

    async def delete_campaign(self, campaign_id: str, versions: AbstractSet[int] | None) -> None:
        """Delete a campaign. To ask again after that finds none.

        Raises:
            CampaignNotFoundError: There is none of that id.
            StaleCampaignError: It is at none of the versions.
            CampaignInUseError: It is active or paused.
        """


class MongoCampaignStore:
    """The store on a database.

    Any call may raise `runtime.errors.DependencyUnavailable`, also when the answer to a write was lost: it has then
    happened whole or not at all, and which of the two is not known. The key or the versions make asking again safe.

    Args:
        database: Where the campaigns are.
        keep_keys_seconds: How long an idempotency key is kept, at least; the database looks for old ones each minute.
        reach: Called at each of `CRASH_POINTS`: three on the way to a new campaign, one behind each other write.
    """

    def __init__(
        self, database: MongoDatabase, keep_keys_seconds: float, reach: Callable[[str], None] = lambda _: None
    ) -> None:
        self._database = database
        self._keep_keys = timedelta(seconds=keep_keys_seconds)
        self._reach = reach

    async def create_indexes(self) -> None:
        """Create the indexes of this service; see `MongoDatabase.create_indexes`."""
        await self._database.create_indexes(INDEXES)

    async def find_campaign(self, campaign_id: str) -> CampaignView | None:
        """See `CampaignStore`."""
        async with self._database.call():
            document = await self._campaigns.find_one({"_id": campaign_id})
        return None if document is None else view_of(document)

    async def list_campaigns(
        self, wanted: CampaignFilter, limit: int, after: PagePosition | None
    ) -> list[CampaignView]:
        """See `CampaignStore`."""
        async with self._database.call():
            found = self._campaigns.find(_filter(wanted, after), sort=_NEWEST_FIRST, limit=limit, batch_size=limit)
            return [view_of(document) for document in await found.to_list(None)]

    async def create_campaign(self, order: CampaignOrder, key: IdempotencyKey) -> StoredAnswer:
        """See `CampaignStore`."""
        kept = await self._kept_answer(key)
        if kept is not None:
            return kept
        try:
            answer = await self._database.transaction(self._create, order, key)
        except DuplicateKeyError:  # whoever had the key has finished since
            if (kept := await self._kept_answer(key)) is None:
                raise
            return kept
        self._reach("after-commit")
        return answer

    async def change_campaign(
        self, campaign_id: str, versions: AbstractSet[int] | None, changes: CampaignChanges
    ) -> CampaignView:
        """See `CampaignStore`."""
        for _ in range(_TRIES):
            campaign, now = await self._read(campaign_id)
            if is_done(campaign, changes, versions):
                return view_of(_document_of(campaign))
            check_version(campaign, versions)
            changed = change(campaign, changes, now)
            if changed is campaign or await self._write(campaign, changed):
                return view_of(_document_of(changed))
        raise _contended()

    async def delete_campaign(self, campaign_id: str, versions: AbstractSet[int] | None) -> None:
        """See `CampaignStore`."""
        for _ in range(_TRIES):
            campaign, _now = await self._read(campaign_id)
            check_version(campaign, versions)
            check_deletable(campaign)
            async with self._database.call():
                result = await self._campaigns.delete_one(_as_read(campaign))
            if result.deleted_count:
                self._reach("after-delete")
                return
        raise _contended()

    @property
    def _campaigns(self) -> Collection:
        return self._database.collection(CAMPAIGNS)

    async def _read(self, campaign_id: str) -> tuple[Campaign, datetime]:
        """Return the campaign, and what the time is where it is kept."""
        async with self._database.call():
            document = await self._campaigns.find_one({"_id": campaign_id}, _WITH_NOW)
        if document is None:
            raise CampaignNotFoundError
        return _campaign_of(document), document["now"]

    async def _write(self, campaign: Campaign, changed: Campaign) -> bool:
        """Replace what was read by what it became, unless somebody else was faster; fields of others stay."""
        document = _document_of(changed)
        del document["_id"]
        async with self._database.call():
            result = await self._campaigns.update_one(_as_read(campaign), {"$set": document})
        if not result.matched_count:
            return False
        self._reach("after-change")
        return True

    async def _kept_answer(self, key: IdempotencyKey) -> StoredAnswer | None:
        async with self._database.call():
            kept = await self._database.collection(KEYS).find_one({"_id": _key_id(key)})
        if kept is None:
            return None
        if kept["body_hash"] != key.body_hash:
            raise IdempotencyKeyReusedError
        return StoredAnswer(status=kept["status"], body=kept["response"])

    async def _create(self, session: Session, order: CampaignOrder, key: IdempotencyKey) -> StoredAnswer:
        """Insert the campaign, then its answer under the key: of two with one key, only one can commit.

        The key is written last. MongoDB ends the transaction of a process that died only when its lifetime is over (60
        s, unless told otherwise), and until then whoever repeats the request is told that it is in progress.
        """
        fields = {**order._asdict(), "status": CampaignStatus.DRAFT, "version": FIRST_VERSION}
        del fields["campaign_id"]
        made = {"$mergeObjects": ["$$ROOT", {"$literal": fields}, {"created_at": "$$NOW", "updated_at": "$$NOW"}]}
        document = await self._campaigns.find_one_and_update(
            {"_id": order.campaign_id, "version": {"$exists": False}},  # an id that is taken is never written over
            [{"$replaceWith": made}],
            upsert=True,
            return_document=ReturnDocument.AFTER,
            session=session,
        )
        if document is None:
            raise AssertionError("an upsert returns its document")
        self._reach("after-insert")
        answer = StoredAnswer(status=201, body=encode(view_of(document)))
        try:
            await self._database.collection(KEYS).insert_one(self._kept(key, answer, document), session=session)
        except OperationFailure as error:
            if is_contended(error):
                raise RequestInProgressError from error
            raise
        self._reach("after-key")
        return answer

    def _kept(self, key: IdempotencyKey, answer: StoredAnswer, campaign: Document) -> Document:
        return {
            "_id": _key_id(key),
            "body_hash": key.body_hash,
            "status": answer.status,
            "response": answer.body,
            "expires_at": campaign["created_at"] + self._keep_keys,
        }


def _key_id(key: IdempotencyKey) -> object:
    return {"subject": key.subject, "route": key.route, "key": key.key}


def _filter(wanted: CampaignFilter, after: PagePosition | None) -> Document:
    """Return the query; `starts_at` bounds it at both pages and spans, so that it walks an index in order."""
    query: Document = {}
    starts_at: dict[str, datetime] = {}
    if len(wanted.statuses) < len(CampaignStatus):
        query["status"] = {"$in": sorted(wanted.statuses)}
    if wanted.on is not None:
        starts_at["$lt"] = wanted.on.end
        query["ends_at"] = {"$gt": wanted.on.begin}
    if after is not None:
        starts_at["$lte"] = after.starts_at
        query["$or"] = [{"starts_at": {"$lt": after.starts_at}}, {"_id": {"$lt": after.campaign_id}}]
    if starts_at:
        query["starts_at"] = starts_at
    return query


def _as_read(campaign: Campaign) -> Document:
    return {"_id": campaign.campaign_id, "version": campaign.version}


def _document_of(campaign: Campaign) -> Document:
    return {"_id": campaign.campaign_id, **{name: getattr(campaign, name) for name in _CONTENT}}


def _campaign_of(document: Mapping[str, Any]) -> Campaign:  # Any: BSON
    content = {name: document[name] for name in _CONTENT}
    content["status"] = CampaignStatus(content["status"])
    return Campaign(campaign_id=document["_id"], **content)


def _contended() -> TransactionContended:
    return TransactionContended(DEPENDENCY, f"the campaign was changed by others {_TRIES} times in a row")
