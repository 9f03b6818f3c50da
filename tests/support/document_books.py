"""Campaigns and consents in order: a journal and the holdings that belong to it, for the audit's tests to disturb."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from sandbox.consent_document import DETAILS, MASTERS, Content
from sandbox.document_holdings import CampaignRow, DocumentHoldings
from sandbox.journal import Acknowledgement, Attempt, ConsentWrite, Operation, Record, Seed

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
OPERATOR = "operator"
_EXPECTED = ("200", "201", "204")


class Outcome(Enum):
    """What becomes of a write: with an answer, or without one, when it may have had its effect or not."""

    ANSWERED = "answered"
    LOST_AND_DONE = "lost and done"
    LOST_AND_NOT_DONE = "lost and not done"


class Campaigns:
    """An operator's requests with their answers, applied to a database as campaign_api would."""

    def __init__(self) -> None:
        self.attempts: dict[int, Attempt] = {}
        self.acknowledgements: dict[int, Acknowledgement] = {}
        self.stored: dict[str, CampaignRow] = {}
        self._seconds = 0

    def record(self) -> Record:
        """Return what was written down."""
        return Record(Seed({}, {}), self.attempts, self.acknowledgements)

    def create(self, outcome: Outcome = Outcome.ANSWERED, *, key: str | None = None, name: str | None = None) -> str:
        """Ask for a campaign, and return its id."""
        number = len(self.attempts) + 1
        wanted = {"name": name or f"Offer {number}", "description": "", "starts_at": _text(0), "ends_at": _text(60)}
        attempt = self.ask(Operation.CREATE_CAMPAIGN, key=key or f"key-{number}", wanted=wanted)
        campaign_id = f"cp-{number}"
        if outcome is not Outcome.LOST_AND_NOT_DONE:
            now = self._now()
            dates = (BEGIN, BEGIN + timedelta(days=60))
            self.stored[campaign_id] = CampaignRow(campaign_id, wanted["name"], "", "draft", *dates, now, now, 1)
        if outcome is Outcome.ANSWERED:
            self.answer(attempt, 201, self.told(campaign_id))
        return campaign_id

    def change(
        self, campaign_id: str, wanted: dict[str, Any], version: int, outcome: Outcome = Outcome.ANSWERED
    ) -> None:  # Any: JSON
        """Ask for a change of one version of a campaign."""
        attempt = self.ask(Operation.CHANGE_CAMPAIGN, target=campaign_id, wanted=wanted, version=version)
        row = self.stored.get(campaign_id)
        if outcome is Outcome.LOST_AND_NOT_DONE:
            return
        if row is None or row.version != version:
            if outcome is Outcome.ANSWERED:
                refusal = (404, "campaign-not-found") if row is None else (412, "campaign-changed")
                self.answer(attempt, refusal[0], code=refusal[1])
            return
        self.stored[campaign_id] = replace(row, **wanted, version=version + 1, updated_at=self._now())
        if outcome is Outcome.ANSWERED:
            self.answer(attempt, 200, self.told(campaign_id))

    def delete(self, campaign_id: str, version: int, outcome: Outcome = Outcome.ANSWERED) -> None:
        """Ask for the end of one version of a campaign."""
        attempt = self.ask(Operation.DELETE_CAMPAIGN, target=campaign_id, version=version)
        row = self.stored.get(campaign_id)
        is_right = row is not None and row.version == version
        if outcome is not Outcome.LOST_AND_NOT_DONE and is_right:
            del self.stored[campaign_id]
        if outcome is Outcome.ANSWERED and is_right:
            self.answer(attempt, 204)
        elif outcome is Outcome.ANSWERED:
            refusal = (404, "campaign-not-found") if row is None else (412, "campaign-changed")
            self.answer(attempt, refusal[0], code=refusal[1])

    def ask(
        self,
        operation: Operation,
        *,
        target: str = "",
        key: str | None = None,
        wanted: dict[str, Any] | None = None,  # Any: JSON
        version: int | None = None,
    ) -> Attempt:
        """Write down a request."""
        number = len(self.attempts) + 1
        attempt = Attempt(
            number, operation, OPERATOR, target, key, _EXPECTED, None, 1_000.0 + number, wanted or {}, version
        )
        self.attempts[number] = attempt
        return attempt

    def answer(
        self, attempt: Attempt, status: int, body: dict[str, Any] | None = None, code: str | None = None
    ) -> None:  # Any: JSON
        """Write down an answer."""
        self.acknowledgements[attempt.number] = Acknowledgement(attempt.number, status, code, body or {}, 0.01)

    def told(self, campaign_id: str) -> dict[str, Any]:  # Any: JSON
        """Return a stored campaign as an answer shows it."""
        row = self.stored[campaign_id]
        values = {name: getattr(row, name) for name in CampaignRow.__slots__}
        return {name: one.isoformat() if isinstance(one, datetime) else one for name, one in values.items()}

    def _now(self) -> datetime:
        self._seconds += 1
        return BEGIN + timedelta(seconds=self._seconds)


class Consents:
    """What members' apps wrote, applied to MongoDB as it would, and to Salesforce as consent_consumer would."""

    def __init__(self) -> None:
        self.writes: dict[int, ConsentWrite] = {}
        self.outcomes: dict[int, bool] = {}
        self.stored: dict[str, dict[str, Content]] = {MASTERS: {}, DETAILS: {}}
        self.records: dict[str, list[Content]] = {MASTERS: [], DETAILS: []}
        self.dead_letters = 0
        self._changes = 0

    def record(self) -> Record:
        """Return what was written down."""
        return Record(Seed({}, {}), {}, {}, consent_writes=self.writes, consent_outcomes=self.outcomes)

    def holdings(self) -> DocumentHoldings:
        """Return what MongoDB and Salesforce hold."""
        return DocumentHoldings([], self.stored, self.records, self.dead_letters)

    def put_master(self, name: str, outcome: Outcome = Outcome.ANSWERED, **fields: object) -> Content:
        """Write a master, and return what it says then."""
        content: Content = {
            "member_id": "m-1",
            "status": "granted",
            "policy_version": "2026-1",
            "channel": "web",
            "schema_version": 2,
            "changed_at": self._changed_at(),
            **fields,
        }
        self.write(MASTERS, name, content, outcome)
        return content

    def put_detail(self, name: str, master: str, outcome: Outcome = Outcome.ANSWERED, **fields: object) -> Content:
        """Write a detail, and return what it says then."""
        content: Content = {
            "master_id": master,
            "purpose": "sms",
            "is_granted": True,
            "schema_version": 1,
            "changed_at": self._changed_at(),
            **fields,
        }
        self.write(DETAILS, name, content, outcome)
        return content

    def write(
        self, collection: str, name: str, content: Content | None, outcome: Outcome = Outcome.ANSWERED
    ) -> ConsentWrite:
        """Write a document, or delete it; Salesforce has it at once."""
        number = len(self.writes) + 1
        write = self.writes[number] = ConsentWrite(number, collection, name, content)
        if outcome is Outcome.ANSWERED:
            self.outcomes[number] = True
        if outcome is not Outcome.LOST_AND_NOT_DONE:
            if content is not None:
                self.stored[collection][name] = content
            else:
                self.stored[collection].pop(name, None)
            self._carry(collection, name, content)
        return write

    def record_of(self, collection: str, name: str) -> Content:
        """Return the record of a document."""
        return next(fields for fields in self.records[collection] if fields["ExternalId__c"] == name)

    def _carry(self, collection: str, name: str, content: Content | None) -> None:
        fields: Content = {"ExternalId__c": name, "Deleted__c": content is None, "Version__c": len(self.writes)}
        if content is not None:
            fields["ChangedAt__c"] = content["changed_at"]
            if collection == DETAILS:
                fields["Master__r"] = {"ExternalId__c": content["master_id"]}
                fields |= {"Purpose__c": content["purpose"], "Granted__c": content["is_granted"]}
            else:
                status = content.get("status") or ("granted" if content["granted"] else "withdrawn")
                fields |= {"MemberId__c": content["member_id"], "Status__c": status}
                fields |= {"PolicyVersion__c": content["policy_version"], "Channel__c": content.get("channel", "app")}
        for known in self.records[collection]:
            if known["ExternalId__c"] == name:
                known.update(fields)
                return
        self.records[collection].append(fields)

    def _changed_at(self) -> str:
        self._changes += 1
        return (BEGIN + timedelta(milliseconds=self._changes)).isoformat(timespec="milliseconds")


def _text(days: int) -> str:
    return (BEGIN + timedelta(days=days)).isoformat()
