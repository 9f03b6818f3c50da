"""What the operator does with campaigns, and what members see of them, with the answers that are in order."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from loyalty.campaign import CampaignStatus
from sandbox.instance import Service
from sandbox.journal import Acknowledgement, Operation
from sandbox.request import HeldCampaign, Request

OPERATOR: Final = "operator"
"""Who keeps the campaigns; their token has an operator's scope."""

# A campaign leaves the choice after this many newer ones, so that the memory of a long run stays bounded.
_HELD_MAX: Final = 2_000
_STALE_SHARE: Final = 0.2
_DRAWS: Final = 5
_DAYS: Final = 60
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PATH: Final = "/v1/campaigns"
_NEXT: Final[Mapping[str, tuple[CampaignStatus, ...]]] = {
    CampaignStatus.DRAFT: (CampaignStatus.ACTIVE, CampaignStatus.ACTIVE, CampaignStatus.ENDED),
    CampaignStatus.ACTIVE: (CampaignStatus.PAUSED, CampaignStatus.ENDED),
    CampaignStatus.PAUSED: (CampaignStatus.ACTIVE, CampaignStatus.ENDED),
    CampaignStatus.ENDED: (),
}
_DELETABLE: Final = (CampaignStatus.DRAFT, CampaignStatus.ENDED)


@dataclass(slots=True)
class CampaignMix:
    """Decide what is asked about campaigns next, and remember what the operator was told.

    The operator changes one campaign by one request at a time, and deletes none that somebody reads just now, so that
    each request has one answer that is in order. One whose outcome stays unknown is left alone from then on.

    Args:
        random: decides; the same state gives the same sequence of decisions.
    """

    random: Random
    _held: list[HeldCampaign] = field(default_factory=list)
    _cursor: str | None = None

    def browse(self, member_id: str) -> Request:
        """Return a member's request for a page: the first one of a filter, or the one behind the last that was seen."""
        query = {"limit": "20"}
        if self.random.random() < 0.4:
            query["status"] = self.random.choice(list(CampaignStatus)).value
        if self.random.random() < 0.4:
            query["on"] = self._time().date().isoformat()
        if self._cursor is not None and self.random.random() < 0.4:
            query["cursor"] = self._cursor
        return Request(
            Operation.BROWSE_CAMPAIGNS,
            Service.CAMPAIGN_API,
            "GET",
            f"{_PATH}?{urlencode(query)}",
            member_id,
            expected=("200",),
        )

    def see(self, member_id: str) -> Request | None:
        """Return a request for one campaign, a draft's by the operator; None where there is none to see."""
        found = self._any(lambda _: True)
        if found is None:
            return None
        found.readers += 1
        return Request(
            Operation.SEE_CAMPAIGN,
            Service.CAMPAIGN_API,
            "GET",
            f"{_PATH}/{found.campaign_id}",
            OPERATOR if found.status == CampaignStatus.DRAFT else member_id,
            expected=("200",),
            target=found.campaign_id,
            campaign=found,
        )

    def create(self) -> Request:
        """Return the operator's request for a new draft, under a key of its own."""
        starts_at = self._time()
        wanted = {
            "name": self._name(),
            "description": "Double points for whoever comes by train.",
            "starts_at": _text(starts_at),
            "ends_at": _text(starts_at + timedelta(days=self.random.randint(1, _DAYS))),
        }
        return Request(
            Operation.CREATE_CAMPAIGN,
            Service.CAMPAIGN_API,
            "POST",
            _PATH,
            OPERATOR,
            expected=("201",),
            key=uuid.UUID(int=self.random.getrandbits(128), version=4).hex,
            body=orjson.dumps(wanted),
            wanted=wanted,
            is_repeatable=True,
        )

    def change(self) -> Request | None:
        """Return the operator's change of a campaign, sometimes of a version that is no more; None where there is none.

        Every change wants a name that no campaign ever had, so a stale one is never taken for a repetition.
        """
        found = self._any(lambda one: not one.is_busy)
        if found is None:
            return None
        found.is_busy = True
        is_stale = found.version > 1 and self.random.random() < _STALE_SHARE
        wanted: dict[str, Any] = {"name": self._name()}
        if (following := _NEXT[found.status]) and self.random.random() < 0.6:
            wanted["status"] = self.random.choice(following).value
        return Request(
            Operation.CHANGE_CAMPAIGN,
            Service.CAMPAIGN_API,
            "PATCH",
            f"{_PATH}/{found.campaign_id}",
            OPERATOR,
            expected=("412 campaign-changed",) if is_stale else ("200",),
            target=found.campaign_id,
            if_match=found.version - 1 if is_stale else found.version,
            body=orjson.dumps(wanted),
            wanted=wanted,
            campaign=found,
            is_repeatable=True,
        )

    def delete(self) -> Request | None:
        """Return the operator's deletion of a draft or an ended campaign; None where there is none."""
        found = self._any(lambda one: not one.is_busy and not one.readers and one.status in _DELETABLE)
        if found is None:
            return None
        self._held.remove(found)
        return Request(
            Operation.DELETE_CAMPAIGN,
            Service.CAMPAIGN_API,
            "DELETE",
            f"{_PATH}/{found.campaign_id}",
            OPERATOR,
            expected=("204",),
            expected_again=("404 campaign-not-found",),
            target=found.campaign_id,
            if_match=found.version,
            campaign=found,
            is_repeatable=True,
        )

    def release(self, request: Request) -> None:
        """Note that a request has ended, whatever came of it."""
        if request.campaign is None:
            return
        if request.operation is Operation.SEE_CAMPAIGN:
            request.campaign.readers -= 1
        else:
            request.campaign.is_busy = False

    def learn(self, request: Request, answer: Acknowledgement | None, document: Mapping[str, Any]) -> None:  # Any: JSON
        """Remember what a request's last answer told; None where there was none."""
        is_known = answer is not None and not answer.is_unknown
        status = None if answer is None else answer.status
        if request.operation is Operation.CHANGE_CAMPAIGN and request.campaign is not None:
            if not is_known and request.campaign in self._held:
                self._held.remove(request.campaign)
            elif status == HTTPStatus.OK:
                request.campaign.version, request.campaign.status = document["version"], document["status"]
        elif request.operation is Operation.CREATE_CAMPAIGN and status == HTTPStatus.CREATED:
            self._hold(HeldCampaign(document["campaign_id"], document["version"], document["status"]))
        elif request.operation is Operation.BROWSE_CAMPAIGNS and status == HTTPStatus.OK:
            self._cursor = document.get("next_cursor")

    def _hold(self, campaign: HeldCampaign) -> None:
        if len(self._held) >= _HELD_MAX:
            self._held[self.random.randrange(_HELD_MAX)] = campaign
        else:
            self._held.append(campaign)

    def _any(self, is_wanted: Callable[[HeldCampaign], bool]) -> HeldCampaign | None:
        """Return a campaign that meets a condition, if one is found in a few draws."""
        for _ in range(_DRAWS if self._held else 0):
            found = self.random.choice(self._held)
            if is_wanted(found):
                return found
        return None

    def _name(self) -> str:
        return f"Spring offer {self.random.getrandbits(64):016x}"

    def _time(self) -> datetime:
        return _BEGIN + timedelta(hours=self.random.randrange(365 * 24))


def bad_campaign_requests(member_id: str) -> list[Request]:
    """Return one request for each mistake that clients of campaign_api make, with the answer it must get."""

    def bad(
        method: str, path: str, expected: str, body: bytes | None = None, *, key: str | None = None, who: str = OPERATOR
    ) -> Request:
        return Request(
            Operation.BAD_REQUEST, Service.CAMPAIGN_API, method, path, who, (expected,), target=path, key=key, body=body
        )

    key = uuid.uuid4().hex
    dates = b'"starts_at":"2026-02-01T00:00:00Z","ends_at":"2026-01-01T00:00:00Z"'
    nowhere = f"{_PATH}/cp-00000000-0000-7000-8000-000000000000"
    return [
        bad("POST", _PATH, "403 wrong-scope", b"{}", key=key, who=member_id),
        bad("POST", _PATH, "422 invalid-request", b'{"name":"An offer",' + dates + b"}", key=key),
        bad("POST", _PATH, "400 malformed-json", b'{"name":', key=key),
        bad("POST", _PATH, "422 invalid-request", b"{}"),
        bad("PATCH", nowhere, "428 precondition-required", b'{"name":"An offer"}'),
        bad("GET", f"{_PATH}?status=loud", "422 invalid-request", who=member_id),
        bad("GET", f"{_PATH}?cursor=made-up", "422 invalid-request", who=member_id),
        bad("GET", nowhere, "404 campaign-not-found", who=member_id),
        bad("PUT", _PATH, "405 method-not-allowed", who=member_id),
    ]


def _text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")
