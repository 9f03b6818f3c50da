"""How far consents have come from MongoDB to Salesforce."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import httpx
from pymongo.errors import PyMongoError

from sandbox.consent_document import name_of
from sandbox.document_database import Database
from sandbox.document_holdings import OBJECT_OF
from sandbox.salesforce import SalesforceControl

_DEAD_LETTERS: Final = "consent_dead_letters"

_Times: TypeAlias = dict[str, datetime | None]
"""Of each document or record, by its name, when it was changed last; no two states of a document share that."""


@dataclass(frozen=True, slots=True)
class ConsentProgress:
    """The consents at one moment.

    Attributes:
        arrived: documents whose last state Salesforce has.
        waiting: documents of which it has another state or none, and those that are gone here but not there.
        dead_letters: changes that were put aside.
    """

    arrived: int
    waiting: int
    dead_letters: int


class ConsentWatch:
    """Compare MongoDB and Salesforce again and again; of Salesforce only what came since the last look is read.

    Args:
        database: the consents', for a user who may read them.
        salesforce: the control interface of the sandbox.
    """

    def __init__(self, database: Database, salesforce: SalesforceControl) -> None:
        self._database = database
        self._salesforce = salesforce
        self._call = 0
        self._living: defaultdict[str, _Times] = defaultdict(dict)

    async def look(self) -> ConsentProgress | None:
        """Take one look; None when one of the two does not answer at this moment."""
        try:
            dead_letters = await self._database[_DEAD_LETTERS].count_documents({})
            # First the documents: what is written while Salesforce is read can only look as if it still waited.
            documents = {name: await self._documents(name) for name in OBJECT_OF}
            await self._follow()
        except (PyMongoError, httpx.HTTPError, OSError):
            return None
        arrived = waiting = 0
        for collection, object_type in OBJECT_OF.items():
            stored, living = documents[collection], self._living[object_type]
            same = sum(living.get(name) == changed_at for name, changed_at in stored.items())
            arrived += same
            waiting += len(stored) - same + len(living.keys() - stored.keys())
        return ConsentProgress(arrived, waiting, dead_letters)

    async def _documents(self, collection: str) -> _Times:
        found = self._database[collection].find({}, {"changed_at": 1})
        return {name_of(document["_id"]): document["changed_at"] async for document in found}

    async def _follow(self) -> None:
        """Read what Salesforce has applied since the last look; what is marked as deleted lives no more."""
        async for applied in self._salesforce.applied(self._call):
            living, fields = self._living[applied.type], applied.fields
            if fields.get("Deleted__c") is True:
                living.pop(applied.external_id, None)
            else:
                text = fields.get("ChangedAt__c")
                living[applied.external_id] = None if text is None else datetime.fromisoformat(text)
            self._call = applied.call
