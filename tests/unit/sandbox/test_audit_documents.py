"""The audit has campaigns and consents in its verdict, and is not ok where they were left out."""

import sys
from dataclasses import replace

import pytest

from sandbox.audit import _arguments, audit
from sandbox.consent_document import MASTERS
from sandbox.holdings import Holdings
from sandbox.journal import Record
from tests.support.books import World
from tests.support.document_books import Campaigns, Consents, Outcome


def _papers() -> tuple[Campaigns, Consents]:
    """Return campaigns and consents in order: one kept and one deleted of each, and one write of unknown outcome."""
    campaigns, consents = Campaigns(), Consents()
    campaigns.create()
    campaigns.delete(campaigns.create(), 1)
    consents.put_master("i:1")
    consents.put_master("i:2")
    consents.write(MASTERS, "i:2", None)
    consents.put_detail("i:3", "i:1", Outcome.LOST_AND_NOT_DONE)
    return campaigns, consents


def _whole(campaigns: Campaigns, consents: Consents) -> tuple[Record, Holdings]:
    """Return them as the books of a platform whose members asked for nothing else."""
    world = World()
    world.attempts, world.acknowledgements = campaigns.attempts, campaigns.acknowledgements
    record = replace(world.record(), consent_writes=consents.writes, consent_outcomes=consents.outcomes)
    documents = replace(consents.holdings(), campaigns=list(campaigns.stored.values()))
    return record, replace(world.holdings(), documents=documents)


def test_campaigns_and_consents_are_counted_in_the_same_line() -> None:
    """Where there is MongoDB, the last line goes on with what it and Salesforce hold."""
    verdict = audit(*_whole(*_papers()))
    assert verdict.differences == ()
    (line,) = verdict.lines()
    assert line.endswith(
        "0 dead letters; 2 campaigns that operators were told of, 1 stored, 4 writes of consents (1 of unknown "
        "outcome), 1 documents, 1 records in Salesforce and 1 marked as deleted, 0 dead letters"
    )


@pytest.mark.parametrize("is_about_campaigns", [True, False])
def test_documents_that_nobody_looked_at_fail_the_audit(*, is_about_campaigns: bool) -> None:
    """Whoever asked for campaigns or wrote consents is not told ok by an audit that did not read MongoDB."""
    campaigns, consents = _papers()
    record, _ = _whole(campaigns, Consents()) if is_about_campaigns else _whole(Campaigns(), consents)
    (difference,) = audit(record, World().holdings()).differences
    assert "MongoDB was not looked at" in difference


@pytest.mark.parametrize("is_about_campaigns", [True, False])
def test_broken_books_of_documents_fail_the_audit(*, is_about_campaigns: bool) -> None:
    """A difference in the books of the campaigns, or of the consents, is one of the audit."""
    campaigns, consents = _papers()
    if is_about_campaigns:
        campaigns.stored.clear()
    else:
        consents.dead_letters = 1
    assert len(audit(*_whole(campaigns, consents)).differences) == 1


def test_half_of_what_is_to_be_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MongoDB without Salesforce says nothing of what arrived, and the other way round nothing of what was to."""
    needed = ["audit", "--journal", "j", "--rewards", "r", "--coupons", "c"]
    for half in ("--mongo", "--salesforce"):
        monkeypatch.setattr(sys, "argv", [*needed, half, "url"])
        with pytest.raises(SystemExit):
            _arguments()
        assert "belong together" in capsys.readouterr().err
