"""The books of the campaigns: what operators asked for and were told, and what is stored."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Final, TypeAlias

from sandbox.difference import unequal
from sandbox.document_holdings import CampaignRow
from sandbox.journal import Acknowledgement, Attempt, Operation, Record

_OK: Final = 200
_CREATED: Final = 201
_NO_CONTENT: Final = 204
_FIRST: Final = {"version": 1, "status": "draft"}
_TIMES: Final = frozenset({"starts_at", "ends_at"})

_Order: TypeAlias = tuple[str, str | None]
"""Who asked for a campaign, and under which key: repetitions are the same order."""


class CampaignBooks:
    """The links between the journal and the campaigns, one method each; each yields its differences.

    A change names the version that it is for, so one that had no answer can have had its effect on that version alone:
    what a campaign may have become follows from the last version that somebody was told of.

    Args:
        record: what the clients wrote down.
        campaigns: what is stored.
    """

    def __init__(self, record: Record, campaigns: Sequence[CampaignRow]) -> None:
        self._stored = {row.campaign_id: row for row in campaigns}
        self.told: defaultdict[str, dict[int, CampaignRow]] = defaultdict(dict)
        self._made: dict[_Order, str] = {}
        self._orders: dict[str, _Order] = {}
        self._unanswered_orders: dict[_Order, Mapping[str, Any]] = {}  # Any: JSON
        self._unanswered: defaultdict[str, list[Attempt]] = defaultdict(list)
        self._deleted: set[str] = set()
        self._wrong_answers: list[str] = []
        for number, attempt in record.attempts.items():
            self._enter(attempt, record.acknowledgements.get(number))

    def differences(self) -> Iterator[str]:
        """Yield the differences of all links."""
        for link in (self.answers, self.campaigns_told, self.campaigns_asked_for):
            yield from link()

    def answers(self) -> Iterator[str]:
        """Every answer is what was asked for, and agrees with every other one."""
        yield from self._wrong_answers

    def campaigns_told(self) -> Iterator[str]:
        """Every campaign that somebody was told of is stored as it was last told, or as an unanswered request left it.

        It is gone where somebody was told so, and may be gone where nobody was told whether.
        """
        for campaign_id, versions in self.told.items():
            name = f"campaign {campaign_id}"
            states = self._states(campaign_id, versions)
            row = self._stored.get(campaign_id)
            if row is None:
                if campaign_id not in self._deleted and not self._may_be_deleted(campaign_id, states):
                    yield f"{name} was acknowledged but is not stored"
            elif campaign_id in self._deleted:
                yield f"{name} was told to be deleted but is stored"
            elif row.version not in states:
                yield f"{name} is stored at version {row.version}, which nobody asked for, after {max(versions)}"
            elif row not in states[row.version]:
                yield from unequal(name, _pairs(row, states[row.version][-1]))

    def campaigns_asked_for(self) -> Iterator[str]:
        """Every stored campaign that nobody was told of is one that was asked for and had no answer, once a key."""
        open_orders = [wanted for order, wanted in self._unanswered_orders.items() if order not in self._made]
        for campaign_id in self._stored.keys() - self.told.keys():
            row = self._stored[campaign_id]
            wanted = next((wanted for wanted in open_orders if _has(row, {**wanted, **_FIRST})), None)
            if wanted is None:
                yield f"campaign {campaign_id} came from nowhere: nobody asked for it, or it was made twice"
            else:
                open_orders.remove(wanted)

    def _enter(self, attempt: Attempt, answer: Acknowledgement | None) -> None:
        is_unanswered = answer is None or answer.is_unknown
        match attempt.operation:
            case Operation.CREATE_CAMPAIGN if is_unanswered:
                self._unanswered_orders[attempt.member_id, attempt.key] = attempt.wanted
            case Operation.CHANGE_CAMPAIGN | Operation.DELETE_CAMPAIGN if is_unanswered:
                self._unanswered[attempt.target].append(attempt)
            case Operation.CREATE_CAMPAIGN if answer is not None and answer.status == _CREATED:
                self._tell(attempt, answer)
            case Operation.CHANGE_CAMPAIGN if answer is not None and answer.status == _OK:
                self._tell(attempt, answer)
            case Operation.DELETE_CAMPAIGN if answer is not None and answer.status == _NO_CONTENT:
                self._deleted.add(attempt.target)

    def _tell(self, attempt: Attempt, answer: Acknowledgement) -> None:
        name = f"the answer to request {attempt.number} ({attempt.operation})"
        try:
            row = CampaignRow.of(answer.body)
        except ValueError:
            self._wrong_answers.append(f"{name} is no campaign")
            return
        is_new = attempt.operation is Operation.CREATE_CAMPAIGN
        if not _has(row, {**attempt.wanted, **_FIRST} if is_new else attempt.wanted):
            self._wrong_answers.append(f"{name} is not what was asked for")
        if not is_new and (row.campaign_id != attempt.target or row.version - (attempt.version or 0) not in (0, 1)):
            self._wrong_answers.append(f"{name} is of another campaign or version")
        if is_new:
            order = (attempt.member_id, attempt.key)
            made = self._made.setdefault(order, row.campaign_id)
            if made != row.campaign_id or self._orders.setdefault(made, order) != order:
                self._wrong_answers.append(f"{name} is of two campaigns for one key, or of one for two keys")
        if self.told[row.campaign_id].setdefault(row.version, row) != row:
            self._wrong_answers.append(f"{name} differs from another one of the same version")

    def _states(self, campaign_id: str, told: Mapping[int, CampaignRow]) -> dict[int, list[CampaignRow]]:
        """Return what the campaign may be, by version: the last that was told, and what unanswered changes made of it.

        When such a change was made is not known, so the time is the stored one.
        """
        last = max(told)
        states = {last: [told[last]]}
        stored = self._stored.get(campaign_id)
        changes = [one for one in self._unanswered[campaign_id] if one.operation is Operation.CHANGE_CAMPAIGN]
        for change in sorted(changes, key=lambda change: change.version or 0):
            for state in states.get(change.version or 0, ()):
                changed = replace(state, **_values(change.wanted))
                if changed != state:
                    at = state.updated_at if stored is None else max(state.updated_at, stored.updated_at)
                    changed = replace(changed, version=state.version + 1, updated_at=at)
                    of_version = states.setdefault(changed.version, [])
                    if changed not in of_version:
                        of_version.append(changed)
        return states

    def _may_be_deleted(self, campaign_id: str, states: Mapping[int, object]) -> bool:
        return any(
            one.operation is Operation.DELETE_CAMPAIGN and one.version in states
            for one in self._unanswered[campaign_id]
        )


def _values(wanted: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    """Return what a body asks for, as a row has it: times as such, and for no description an empty one."""
    values = {name: "" if value is None else value for name, value in wanted.items()}
    return {name: datetime.fromisoformat(value) if name in _TIMES else value for name, value in values.items()}


def _has(row: CampaignRow, wanted: Mapping[str, Any]) -> bool:  # Any: JSON
    return all(getattr(row, name, None) == value for name, value in _values(wanted).items())


def _pairs(row: CampaignRow, state: CampaignRow) -> dict[str, tuple[object, ...]]:
    found, right = asdict(row), asdict(state)
    return {name.replace("_", " "): (found[name], right[name]) for name in found}
