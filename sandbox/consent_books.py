"""The books of the consents: what the members' apps wrote, what MongoDB holds, and what Salesforce was told."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

from sandbox.consent_document import MASTERS, Content
from sandbox.difference import unequal
from sandbox.document_holdings import OBJECT_OF, DocumentHoldings, master_of
from sandbox.journal import Record

_States: TypeAlias = list[Mapping[str, Any] | None]  # Any: JSON

_ABSENT: Final = "no document"


class ConsentBooks:
    """The links between the journal, MongoDB and Salesforce, one method each; each yields its differences.

    Each document is written by one app, one write after another, on the condition that it is as that app knows it. So
    it is now as the last acknowledged write left it, or as a later one did whose outcome is unknown.

    Args:
        record: what the apps wrote down.
        holdings: what MongoDB and Salesforce hold.
    """

    def __init__(self, record: Record, holdings: DocumentHoldings) -> None:
        self._holdings = holdings
        self._states: defaultdict[str, dict[str, _States]] = defaultdict(dict)
        for number, write in sorted(record.consent_writes.items()):
            states = self._states[write.collection].setdefault(write.name, [None])
            had_effect = record.consent_outcomes.get(number)
            if had_effect:
                states.clear()
            if had_effect is not False:
                states.append(write.content)
        self._unknown_outcomes = sorted(record.consent_outcomes.keys() - record.consent_writes.keys())
        self._records: defaultdict[str, defaultdict[str, list[Content]]] = defaultdict(lambda: defaultdict(list))
        for collection, records in holdings.records.items():
            for fields in records:
                self._records[collection][str(fields.get("ExternalId__c"))].append(fields)

    def differences(self) -> Iterator[str]:
        """Yield the differences of all links."""
        for link in (
            self.writes,
            self.documents_written,
            self.documents_invented,
            self.records_complete,
            self.records_deleted,
            self.records_invented,
            self.settled,
        ):
            yield from link()

    def writes(self) -> Iterator[str]:
        """Every outcome belongs to a write."""
        for number in self._unknown_outcomes:
            yield f"outcome {number} belongs to no write of a consent"

    def documents_written(self) -> Iterator[str]:
        """Every document is stored as the last acknowledged write left it, or a later one of unknown outcome."""
        for collection, documents in self._states.items():
            for name, states in documents.items():
                found = self._holdings.consents[collection].get(name)
                if found in states:
                    continue
                right = states[-1]
                facts: dict[str, tuple[object, ...]]
                if found is None or right is None:
                    facts = {"content": (found or _ABSENT, right or _ABSENT)}
                else:
                    facts = {fact: (found.get(fact), right.get(fact)) for fact in found.keys() | right.keys()}
                yield from unequal(f"{collection} {name}", facts)

    def documents_invented(self) -> Iterator[str]:
        """No document came from nowhere."""
        for collection, documents in self._holdings.consents.items():
            for name in documents.keys() - self._states[collection].keys():
                yield f"{collection} {name} came from nowhere: no app wrote it"

    def records_complete(self) -> Iterator[str]:
        """Every stored document has exactly one record in Salesforce, of the same content and not marked as gone."""
        for collection, documents in self._holdings.consents.items():
            for name, content in documents.items():
                records = self._records[collection][name]
                if len(records) != 1:
                    yield f"{collection} {name} has {len(records)} records in Salesforce instead of one"
                for fields in records:
                    yield from unequal(f"the record of {collection} {name}", _pairs(collection, content, fields))

    def records_deleted(self) -> Iterator[str]:
        """Of a document that is gone there is at most one record, and that one is marked as deleted."""
        for collection, written in self._states.items():
            for name in written.keys() - self._holdings.consents[collection].keys():
                records = self._records[collection][name]
                if len(records) > 1:
                    yield f"{collection} {name} has {len(records)} records in Salesforce"
                if any(fields.get("Deleted__c") is not True for fields in records):
                    yield f"{collection} {name} is gone, but its record in Salesforce is not marked as deleted"

    def records_invented(self) -> Iterator[str]:
        """Every record stands for a document that an app wrote."""
        for collection, records in self._records.items():
            for name in {name for name, found in records.items() if found} - self._states[collection].keys():
                yield f"record {name} of {OBJECT_OF[collection]} came from nowhere: no app wrote such a document"

    def settled(self) -> Iterator[str]:
        """Nothing was put aside."""
        if self._holdings.dead_letters:
            yield f"{self._holdings.dead_letters} changes of consents are dead letters"


def _pairs(collection: str, content: Content, fields: Content) -> dict[str, tuple[object, ...]]:
    """Hold a record against what its document says; documents of the first version had `granted` for a status."""
    facts: dict[str, tuple[object, ...]] = {
        "mark of deletion": (fields.get("Deleted__c"), False),
        "time": (_time(fields.get("ChangedAt__c")), _time(content.get("changed_at"))),
    }
    if collection == MASTERS:
        status = content.get("status") or ("granted" if content.get("granted") is True else "withdrawn")
        return facts | {
            "member": (fields.get("MemberId__c"), content.get("member_id")),
            "status": (fields.get("Status__c"), status),
            "policy": (fields.get("PolicyVersion__c"), content.get("policy_version")),
            "channel": (fields.get("Channel__c"), content.get("channel", "app")),
        }
    return facts | {
        "master": (master_of(fields), content.get("master_id")),
        "purpose": (fields.get("Purpose__c"), content.get("purpose")),
        "permission": (fields.get("Granted__c"), content.get("is_granted")),
    }


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
