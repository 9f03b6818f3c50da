"""What MongoDB and Salesforce hold, read for the audit with queries of its own: it shares none with the services."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Self

from sandbox.consent_document import DETAILS, MASTERS, Content, content_of, name_of
from sandbox.document_database import open_database
from sandbox.links import GUEST
from sandbox.salesforce import SalesforceControl

OBJECT_OF: Final = {MASTERS: "ConsentMaster__c", DETAILS: "ConsentDetail__c"}
"""Which object of Salesforce stands for which collection."""

_CAMPAIGNS: Final = "campaigns"
_TIMES: Final = ("starts_at", "ends_at", "created_at", "updated_at")
_DEAD_LETTERS: Final = "consent_dead_letters"
_TIMEOUT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign as it is stored, or as somebody was told of it."""

    campaign_id: str
    name: str
    description: str
    status: str
    starts_at: datetime
    ends_at: datetime
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:  # Any: BSON or JSON
        """Read a campaign's document, or the body of an answer, whose times are text; other fields are left out.

        Raises:
            ValueError: it is no campaign.
        """
        values = {"campaign_id": content.get("_id"), **content}
        try:
            row = {field.name: values[field.name] for field in fields(cls)}
            times = {name: _time(row[name]) for name in _TIMES}
        except (KeyError, TypeError) as error:
            raise ValueError(f"{values['campaign_id']} is no campaign: {error!r}") from error
        return cls(**row | times)


@dataclass(frozen=True, slots=True)
class DocumentHoldings:
    """Everything the audit looks at of MongoDB and of Salesforce: as if the guest had never been there.

    Attributes:
        campaigns: as they are stored.
        consents: by collection, the content of each document by its name.
        records: by collection, the fields of each record of Salesforce that stands for one of its documents.
        dead_letters: changes of consents that were put aside.
    """

    campaigns: Sequence[CampaignRow]
    consents: Mapping[str, Mapping[str, Content]]
    records: Mapping[str, Sequence[Content]]
    dead_letters: int


async def read_documents(url: str, salesforce: SalesforceControl, *, campaigns: str, consents: str) -> DocumentHoldings:
    """Read both databases of MongoDB and all records of Salesforce.

    Args:
        url: MongoDB, for a user who may read all of it.
        salesforce: the control interface of the sandbox.
        campaigns: the name of the database of the campaigns.
        consents: the name of the database of the consents.

    Raises:
        ValueError: what is stored as a campaign is none.
        pymongo.errors.PyMongoError: MongoDB cannot be read.
        httpx.HTTPError, TimeoutError, ControlError: Salesforce cannot be read.
    """
    async with open_database(url, campaigns, timeout_seconds=_TIMEOUT_SECONDS) as database:
        rows = [CampaignRow.of(document) async for document in database[_CAMPAIGNS].find()]
    stored: dict[str, dict[str, Content]] = {}
    async with open_database(url, consents, timeout_seconds=_TIMEOUT_SECONDS) as database:
        for name in OBJECT_OF:
            stored[name] = {name_of(one["_id"]): content_of(one) async for one in database[name].find()}
        dead_letters = await database[_DEAD_LETTERS].count_documents({})
    records = {name: [record.fields async for record in salesforce.records(kind)] for name, kind in OBJECT_OF.items()}
    guests = {name for name, content in stored[MASTERS].items() if content.get("member_id") == GUEST}
    guests |= {str(record["ExternalId__c"]) for record in records[MASTERS] if record.get("MemberId__c") == GUEST}
    return DocumentHoldings(
        campaigns=rows,
        consents={
            MASTERS: {name: content for name, content in stored[MASTERS].items() if name not in guests},
            DETAILS: {name: one for name, one in stored[DETAILS].items() if one.get("master_id") not in guests},
        },
        records={
            MASTERS: [record for record in records[MASTERS] if record["ExternalId__c"] not in guests],
            DETAILS: [record for record in records[DETAILS] if master_of(record) not in guests],
        },
        dead_letters=dead_letters,
    )


def master_of(record: Mapping[str, Any]) -> object:  # Any: JSON
    """Return the external id of the master that a detail's record names; None where it names none."""
    return (record.get("Master__r") or {}).get("ExternalId__c")


def _time(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise TypeError("a time must be a text")
    return datetime.fromisoformat(value)
