"""Make of changes what Salesforce is told: one function a collection, as in the original.

The original's `updateConsentMasterToSalesforce` takes one document, sends it, and drops whatever comes back. Here a
call takes up to 200 changes, and each of them gets its outcome; a document that is no consent gets one as well, without
a call.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from bson.errors import BSONError

from loyalty.consent import read_detail, read_master
from loyalty.errors import ConsentError
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER, Change
from services.consent_consumer.outcome import Outcome, Verdict
from services.consent_consumer.record import (
    DETAIL_OBJECT,
    MASTER_OBJECT,
    Record,
    deleted_record,
    detail_record,
    master_record,
    version,
)
from services.consent_consumer.salesforce import Salesforce

EVENT_TOO_LARGE: Final = Outcome(
    Verdict.REFUSED, "EventTooLarge", "the event with its document has no room in an answer"
)
"""What becomes of a change that is not whole: its document may live, so nothing can be told of it."""

_Consent = TypeVar("_Consent")

Update = Callable[[Salesforce, Sequence[Change]], Awaitable[list[Outcome]]]
"""Carries changes of documents that all differ, and returns what became of each, in their order; see `Salesforce`."""


async def update_consent_master_to_salesforce(salesforce: Salesforce, changes: Sequence[Change]) -> list[Outcome]:
    """Put the changed consents into Salesforce, as `Update` says."""
    return await _update(salesforce, MASTER_OBJECT, changes, lambda change: _record(change, read_master, master_record))


async def update_consent_detail_to_salesforce(salesforce: Salesforce, changes: Sequence[Change]) -> list[Outcome]:
    """Put the changed details into Salesforce, as `Update` says."""
    return await _update(salesforce, DETAIL_OBJECT, changes, lambda change: _record(change, read_detail, detail_record))


UPDATES: Final[Mapping[str, Update]] = {
    CONSENT_MASTER: update_consent_master_to_salesforce,
    CONSENT_DETAIL: update_consent_detail_to_salesforce,
}


async def _update(
    salesforce: Salesforce, object_type: str, changes: Sequence[Change], make: Callable[[Change], Record | Outcome]
) -> list[Outcome]:
    made = [make(change) for change in changes]
    records = [each for each in made if not isinstance(each, Outcome)]
    sent = iter(await salesforce.upsert(object_type, records))
    return [each if isinstance(each, Outcome) else next(sent) for each in made]


def _record(
    change: Change,
    read: Callable[[Mapping[str, Any]], _Consent],
    make: Callable[[_Consent, int], Record],
) -> Record | Outcome:
    """Return the record of a change, or why there cannot be one."""
    at_version = version(change.event["clusterTime"])
    if not change.is_whole:
        return EVENT_TOO_LARGE
    try:
        document = change.document
        if document is None:
            return deleted_record(change.document_id, at_version)
        return make(read(document), at_version)
    except ConsentError as error:
        return Outcome(Verdict.REFUSED, type(error).__name__, str(error))
    except BSONError as error:
        return Outcome(Verdict.REFUSED, type(error).__name__, "the document cannot be decoded")
