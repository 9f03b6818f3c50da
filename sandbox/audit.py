"""Compare what the clients wrote down with what the databases hold.

    python -m sandbox.audit --journal DIRECTORY --rewards URL --coupons URL [--mongo URL --salesforce URL]

Of loaded files it also reads the reject files, which lie beside the journal. Nothing else is asked: no service, no log,
no metric. The last line is `audit ok: ...` with the counts and the status 0, or `audit FAILED: ...` with the
differences and the status 1. It is meant for a quiet system: traffic has ended and the backlog has drained.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import asyncpg
import httpx
from pymongo.errors import PyMongoError

from runtime.settings import read_secret
from sandbox.campaign_books import CampaignBooks
from sandbox.consent_books import ConsentBooks
from sandbox.coupon_books import CouponBooks
from sandbox.document_holdings import DocumentHoldings, read_documents
from sandbox.holdings import Holdings, read_holdings
from sandbox.journal import REJECTS, Operation, Record, read_journal
from sandbox.load_books import LoadBooks, LoadCounts
from sandbox.salesforce import ControlError, SalesforceControl
from sandbox.world import CAMPAIGNS, CONSENTS

SERVER_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    PyMongoError,
    httpx.HTTPError,
    ControlError,
)
"""What the servers of a platform, and the ways to them, raise; a time that is over is an OSError, too."""
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class DocumentCounts:
    """What the audit found of campaigns and consents.

    Attributes:
        campaigns_told: campaigns that operators were told of.
        campaigns: stored ones.
        consent_writes: writes of consents that were attempted.
        consent_writes_unknown: those of which nobody knows whether they had their effect.
        documents: documents of consents, of both collections.
        records: records in Salesforce that are not marked as deleted.
        records_deleted: those that are.
        dead_letters: changes of consents that were put aside.
    """

    campaigns_told: int
    campaigns: int
    consent_writes: int
    consent_writes_unknown: int
    documents: int
    records: int
    records_deleted: int
    dead_letters: int

    def __str__(self) -> str:
        return (
            f"{self.campaigns_told} campaigns that operators were told of, {self.campaigns} stored, "
            f"{self.consent_writes} writes of consents ({self.consent_writes_unknown} of unknown outcome), "
            f"{self.documents} documents, {self.records} records in Salesforce "
            f"and {self.records_deleted} marked as deleted, {self.dead_letters} dead letters"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the audit found: the counts, and every difference in one sentence each.

    `coupons` are those that no file brought; `loads` counts the others, None where there are none. `documents` counts
    campaigns and consents; None where the platform has none.
    """

    requests: int
    failed_requests: int
    redemptions_told: int
    redemptions: int
    coupons: int
    redeemed: int
    cancelled: int
    dead_letters: int
    differences: tuple[str, ...]
    loads: LoadCounts | None = None
    documents: DocumentCounts | None = None

    @property
    def is_ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def lines(self) -> Iterator[str]:
        """Yield the differences, at most 20 of them, and the verdict as the last line."""
        for difference in self.differences[:_SHOWN]:
            yield f"  difference: {difference}"
        if len(self.differences) > _SHOWN:
            yield f"  and {len(self.differences) - _SHOWN} more"
        counts = (
            f"{self.requests} requests ({self.failed_requests} failed), "
            f"{self.redemptions_told} redemptions that members were told of, {self.redemptions} stored, "
            f"{self.coupons} coupons ({self.redeemed} redeemed, {self.cancelled} cancelled), "
            f"{self.dead_letters} dead letters"
        )
        for more in (self.loads, self.documents):
            if more is not None:
                counts += f"; {more}"
        if self.is_ok:
            yield f"audit ok: {counts}"
        else:
            yield f"audit FAILED: {len(self.differences)} differences, the first: {self.differences[0]} ({counts})"


def audit(
    record: Record, holdings: Holdings, *, failures_allowed: bool = False, dead_letters_expected: int = 0
) -> Verdict:
    """Hold a journal against the databases.

    Args:
        record: what the clients wrote down.
        holdings: what the databases hold.
        failures_allowed: whether requests may have failed (services were killed on purpose). What a failed request
            may have done is then: everything it asked for, or nothing.
        dead_letters_expected: how many records that nobody can understand were put on the topic.
    """
    books = CouponBooks(record, holdings, dead_letters_expected)
    loads = LoadBooks(record.files, holdings.loads)
    failed = list(_failed_requests(record))
    differences = [*([] if failures_allowed else failed), *books.differences(), *loads.differences()]
    documents = None
    if holdings.documents is None:
        differences += _documents_not_read(record)
    else:
        campaigns = CampaignBooks(record, holdings.documents.campaigns)
        differences += [*campaigns.differences(), *ConsentBooks(record, holdings.documents).differences()]
        documents = _count(record, holdings.documents, campaigns_told=len(campaigns.told))
    statuses = Counter(coupon.status for coupon in holdings.coupons)
    return Verdict(
        requests=len(record.attempts),
        failed_requests=len(failed),
        redemptions_told=len(books.told),
        redemptions=len(holdings.redemptions),
        coupons=len(holdings.coupons),
        redeemed=statuses["redeemed"],
        cancelled=statuses["cancelled"],
        dead_letters=holdings.dead_letters,
        differences=tuple(differences),
        loads=loads.counts(),
        documents=documents,
    )


def _documents_not_read(record: Record) -> Iterator[str]:
    """What is in MongoDB has been read where somebody wrote there."""
    campaigns = sum(attempt.operation is Operation.CREATE_CAMPAIGN for attempt in record.attempts.values())
    if campaigns or record.consent_writes:
        writes = len(record.consent_writes)
        yield f"{campaigns} requests for campaigns and {writes} writes of consents, but MongoDB was not looked at"


def _count(record: Record, documents: DocumentHoldings, *, campaigns_told: int) -> DocumentCounts:
    marks = Counter(fields.get("Deleted__c") is True for records in documents.records.values() for fields in records)
    return DocumentCounts(
        campaigns_told=campaigns_told,
        campaigns=len(documents.campaigns),
        consent_writes=len(record.consent_writes),
        consent_writes_unknown=len(record.consent_writes.keys() - record.consent_outcomes.keys()),
        documents=sum(len(stored) for stored in documents.consents.values()),
        records=marks[False],
        records_deleted=marks[True],
        dead_letters=documents.dead_letters,
    )


def _failed_requests(record: Record) -> Iterator[str]:
    """Every request whose sender waited for it has an answer, and one that its sender could expect."""
    for number, attempt in record.attempts.items():
        answer = record.acknowledgements.get(number)
        if answer is None and number in record.abandoned:
            continue
        what = f"request {number} ({attempt.operation})"
        if answer is None:
            yield f"{what} failed: {record.failures.get(number, 'no answer was written down')}"
        elif answer.outcome not in attempt.expected:
            yield f"{what} failed: the answer was {answer.outcome}, not {' or '.join(attempt.expected)}"
    for number in record.acknowledgements.keys() - record.attempts.keys():
        yield f"answer {number} belongs to no request"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare what the clients wrote down with what the databases hold.")
    parser.add_argument(
        "--journal", type=Path, required=True, help="the directory with the clients' two files, and with rejects"
    )
    parser.add_argument("--rewards", required=True, help="URL of the database `rewards`")
    parser.add_argument("--coupons", required=True, help="URL of the database `coupons`")
    parser.add_argument("--mongo", help="URL of MongoDB, for a user who may read campaigns and consents")
    parser.add_argument("--campaigns", default=CAMPAIGNS, help="name of the database of the campaigns")
    parser.add_argument("--consents", default=CONSENTS, help="name of the database of the consents")
    parser.add_argument("--salesforce", help="URL of the Salesforce sandbox")
    parser.add_argument("--salesforce-secret-file", type=Path, help="what opens its control, where that has a secret")
    parser.add_argument(
        "--failures-allowed", action="store_true", help="requests may have failed: services were killed"
    )
    arguments = parser.parse_args()
    if (arguments.mongo is None) != (arguments.salesforce is None):
        parser.error("--mongo and --salesforce belong together")
    return arguments


async def _read(arguments: argparse.Namespace, record: Record) -> Holdings:
    rejects = arguments.journal / REJECTS
    holdings = await read_holdings(arguments.rewards, arguments.coupons, list(record.files), rejects)
    if arguments.mongo is None:
        return holdings
    secret = await asyncio.to_thread(read_secret, None, arguments.salesforce_secret_file)
    async with SalesforceControl(arguments.salesforce, secret) as salesforce:
        documents = await read_documents(
            arguments.mongo, salesforce, campaigns=arguments.campaigns, consents=arguments.consents
        )
    return replace(holdings, documents=documents)


async def _main() -> int:
    arguments = _arguments()
    try:
        record = read_journal(arguments.journal)
        holdings = await _read(arguments, record)
    except (ValueError, *SERVER_ERRORS) as error:
        print(f"audit FAILED: not everything can be read: {type(error).__name__}: {error}")
        return 1
    verdict = audit(record, holdings, failures_allowed=arguments.failures_allowed)
    for line in verdict.lines():
        print(line)
    return 0 if verdict.is_ok else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
