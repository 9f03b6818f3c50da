"""The life of a campaign, as pure rules."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import TypeAdapter, ValidationError

from loyalty.campaign import (
    Campaign,
    CampaignChanges,
    CampaignDescription,
    CampaignName,
    CampaignStatus,
    change,
    check_deletable,
    check_version,
    is_campaign_description,
    is_campaign_name,
    is_done,
    is_finer_than_milliseconds,
)
from loyalty.errors import (
    CampaignDatesContradictError,
    CampaignDatesFixedError,
    CampaignInUseError,
    CampaignTransitionError,
    StaleCampaignError,
)
from loyalty.identifier import CampaignId, is_campaign_id, new_campaign_id

DAY = timedelta(days=1)
MILLISECOND = timedelta(milliseconds=1)
STARTS_AT = datetime(2026, 6, 1, tzinfo=UTC)
ENDS_AT = STARTS_AT + 30 * DAY
BEFORE, DURING = STARTS_AT - MILLISECOND, STARTS_AT
DRAFT, ACTIVE, PAUSED, ENDED = CampaignStatus
CAMPAIGN = Campaign(
    campaign_id="cp-01a20e40-81cf-762a-b458-3c265386670d",
    name="Summer",
    description="Twice the points",
    status=DRAFT,
    starts_at=STARTS_AT,
    ends_at=ENDS_AT,
    created_at=STARTS_AT - 10 * DAY,
    updated_at=STARTS_AT - 9 * DAY,
    version=3,
)
TRANSITIONS = {(DRAFT, ACTIVE), (DRAFT, ENDED), (ACTIVE, PAUSED), (ACTIVE, ENDED), (PAUSED, ACTIVE), (PAUSED, ENDED)}


@pytest.mark.parametrize("to", CampaignStatus)
@pytest.mark.parametrize("of", CampaignStatus)
def test_status_changes_along_the_arrows_alone(of: CampaignStatus, to: CampaignStatus) -> None:
    """Six of the twelve transitions are made, the others refused; a status that is there already is no change."""
    campaign = replace(CAMPAIGN, status=of)
    if of is to:
        assert change(campaign, {"status": to}, DURING) is campaign
    elif (of, to) in TRANSITIONS:
        assert change(campaign, {"status": to}, DURING) == replace(campaign, status=to, updated_at=DURING, version=4)
    else:
        with pytest.raises(CampaignTransitionError):
            change(campaign, {"status": to}, DURING)


@pytest.mark.parametrize("status", CampaignStatus)
def test_texts_change_in_any_status_and_raise_the_version_once(status: CampaignStatus) -> None:
    """A typing error can be mended whenever it is found; all that else changes are time and version."""
    campaign = replace(CAMPAIGN, status=status)
    changed = change(campaign, {"name": "Sommer", "description": ""}, DURING)

    assert changed == replace(campaign, name="Sommer", description="", updated_at=DURING, version=4)


@pytest.mark.parametrize(
    ("status", "now", "is_fixed"),
    [
        (DRAFT, BEFORE, False),
        (DRAFT, DURING, False),
        (ACTIVE, BEFORE, False),
        (ACTIVE, DURING, True),
        (PAUSED, BEFORE, False),
        (PAUSED, DURING, True),
        (ENDED, BEFORE, True),
        (ENDED, DURING, True),
    ],
)
def test_start_is_fixed_once_it_has_begun_in_public_or_ended(
    status: CampaignStatus, now: datetime, is_fixed: bool
) -> None:
    """From `starts_at` on, to the millisecond, an active or paused campaign keeps its start; an ended one always."""
    campaign = replace(CAMPAIGN, status=status)
    later: CampaignChanges = {"starts_at": STARTS_AT + DAY}
    if is_fixed:
        with pytest.raises(CampaignDatesFixedError):
            change(campaign, later, now)
    else:
        assert change(campaign, later, now).starts_at == STARTS_AT + DAY


@pytest.mark.parametrize("status", CampaignStatus)
def test_end_moves_until_the_campaign_has_ended(status: CampaignStatus) -> None:
    """A campaign that runs can be prolonged; one that has ended stays as long as it was."""
    campaign = replace(CAMPAIGN, status=status)
    later: CampaignChanges = {"ends_at": ENDS_AT + DAY}
    if status is ENDED:
        with pytest.raises(CampaignDatesFixedError):
            change(campaign, later, DURING)
    else:
        assert change(campaign, later, DURING).ends_at == ENDS_AT + DAY


def test_rules_look_at_the_campaign_before_the_change() -> None:
    """A draft gets its dates and becomes active at once; an active campaign is ended and cut short at once."""
    began = change(CAMPAIGN, {"status": ACTIVE, "starts_at": STARTS_AT + DAY}, STARTS_AT + 2 * DAY)
    ended = change(began, {"status": ENDED, "ends_at": STARTS_AT + 3 * DAY}, STARTS_AT + 2 * DAY)

    assert (began.status, began.starts_at) == (ACTIVE, STARTS_AT + DAY)
    assert (ended.status, ended.ends_at, ended.version) == (ENDED, STARTS_AT + 3 * DAY, 5)


@pytest.mark.parametrize("changes", [{"ends_at": STARTS_AT}, {"starts_at": ENDS_AT}, {"starts_at": ENDS_AT + DAY}])
def test_campaign_that_would_not_end_after_it_starts_is_refused(changes: CampaignChanges) -> None:
    """One new date is held against the other one as it stands."""
    with pytest.raises(CampaignDatesContradictError):
        change(CAMPAIGN, changes, BEFORE)


@pytest.mark.parametrize("status", CampaignStatus)
def test_wish_for_what_is_there_changes_nothing_in_any_status(status: CampaignStatus) -> None:
    """Equal texts, the same status and the same instants in another spelling leave version and time as they are."""
    campaign = replace(CAMPAIGN, status=status)
    elsewhere = timezone(timedelta(hours=2))
    same: CampaignChanges = {
        "name": "Summer",
        "description": "Twice the points",
        "status": status,
        "starts_at": STARTS_AT.astimezone(elsewhere),
        "ends_at": ENDS_AT.astimezone(elsewhere),
    }

    assert change(campaign, same, DURING) is campaign
    assert change(campaign, {}, DURING) is campaign


def test_version_that_the_caller_has_not_seen_is_stale() -> None:
    """Any of several versions will do, None stands for all, and no version at all matches nothing."""
    check_version(CAMPAIGN, {2, 3})
    check_version(CAMPAIGN, None)
    for versions in ({2}, {4}, set[int]()):
        with pytest.raises(StaleCampaignError):
            check_version(CAMPAIGN, versions)


@pytest.mark.parametrize(
    ("changes", "versions", "expected"),
    [
        ({"name": "Summer"}, {2}, True),
        ({"name": "Summer"}, {2, 9}, True),
        ({"name": "Summer"}, {1}, False),
        ({"name": "Summer"}, {3}, False),
        ({"name": "Winter"}, {2}, False),
        ({"name": "Summer", "status": ACTIVE}, {2}, False),
        ({"name": "Summer"}, None, False),
    ],
)
def test_change_is_done_when_it_is_there_one_version_further(
    changes: CampaignChanges, versions: set[int] | None, expected: bool
) -> None:
    """Neither a campaign that moved on further nor one that looks otherwise counts as the caller's own work."""
    assert is_done(CAMPAIGN, changes, versions) is expected


def test_draft_and_ended_campaign_can_be_deleted_the_others_not() -> None:
    """What members may be looking at does not vanish."""
    for status in (DRAFT, ENDED):
        check_deletable(replace(CAMPAIGN, status=status))
    for status in (ACTIVE, PAUSED):
        with pytest.raises(CampaignInUseError):
            check_deletable(replace(CAMPAIGN, status=status))


@pytest.mark.parametrize(
    "lie",
    [
        {"campaign_id": "cp-1"},
        {"name": ""},
        {"description": "\0"},
        {"starts_at": STARTS_AT.replace(tzinfo=None)},
        {"created_at": STARTS_AT + timedelta(microseconds=1)},
        {"ends_at": STARTS_AT},
        {"version": 0},
    ],
)
def test_campaign_that_contradicts_itself_cannot_be_made(lie: dict[str, object]) -> None:
    """Each field has its rule."""
    with pytest.raises(ValueError, match=r"must|ends_at|times"):
        replace(CAMPAIGN, **lie)  # type: ignore[arg-type]  # one field


@pytest.mark.parametrize(
    ("text", "is_name", "is_description"),
    [
        ("a", True, True),
        ("Été 2026: 2fach Punkte", True, True),
        ("a" * 120, True, True),
        ("a" * 121, False, True),
        ("語" * 120, True, True),
        ("😀" * 90, True, True),
        ("😀" * 91, False, True),
        ("a" * 2_000, False, True),
        ("a" * 2_001, False, False),
        ("語" * 2_000, False, True),
        ("😀" * 1_501, False, False),
        ("", False, True),
        (" ", False, True),
        (" a", False, True),
        ("a ", False, True),
        ("a\u00a0", False, True),
        ("a\nb", False, True),
        ("a\n", False, True),
        ("a\tb\r\n", False, True),
        ("a\0b", False, False),
        ("a\x1bb", False, False),
        ("a\x7f", False, False),
        ("a\x85b", False, False),
    ],
)
def test_texts_keep_to_their_characters_and_lengths(text: str, is_name: bool, is_description: bool) -> None:
    """The rules and the types on the wire agree: lengths in characters and in bytes, and which controls may stand."""
    assert (is_campaign_name(text), is_campaign_description(text)) == (is_name, is_description)
    for kind, is_accepted in ((CampaignName, is_name), (CampaignDescription, is_description)):
        if is_accepted:
            assert TypeAdapter(kind).validate_python(text) == text
        else:
            with pytest.raises(ValidationError):
                TypeAdapter(kind).validate_python(text)


def test_millisecond_is_the_finest_time() -> None:
    """Whole milliseconds pass, a microsecond beside them does not."""
    assert not is_finer_than_milliseconds(STARTS_AT + MILLISECOND)
    assert is_finer_than_milliseconds(STARTS_AT + timedelta(microseconds=1))


def test_new_campaign_ids_are_in_their_spelling_distinct_and_sorted_by_time() -> None:
    """A thousand ids are all valid and never the same, and their leading 48 bits of time never go back."""
    ids = [new_campaign_id() for _ in range(1_000)]

    assert len(set(ids)) == 1_000
    assert all(is_campaign_id(text) and TypeAdapter(CampaignId).validate_python(text) == text for text in ids)
    assert [text[:16] for text in ids] == sorted(text[:16] for text in ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cp-",
        "01a20e40-81cf-762a-b458-3c265386670d",
        "rw-01a20e40-81cf-762a-b458-3c265386670d",
        "cp-01A20E40-81CF-762A-B458-3C265386670D",
        "CP-01a20e40-81cf-762a-b458-3c265386670d",
        "cp-01a20e4081cf762ab4583c265386670d",
        "cp-{01a20e40-81cf-762a-b458-3c265386670d}",
        "cp-urn:uuid:01a20e40-81cf-762a-b458-3c265386670d",
        "cp-01a20e40-81cf-462a-b458-3c265386670d",
        "cp-01a20e40-81cf-762a-7458-3c265386670d",
        "cp-01a20e40-81cf-762a-c458-3c265386670d",
        "cp-01a20e40-81cf-762a-b458-3c265386670",
        "cp-01a20e40-81cf-762a-b458-3c265386670da",
        "cp-01a20e40-81cf-762a-b458-3c265386670d\n",
        " cp-01a20e40-81cf-762a-b458-3c265386670d",
        "cp-01a20e40-81cf-762a-b458-3c265386670g",
        "cp-01a20e40-81cf-762a-b458-3c265386670\u0664",
    ],
)
def test_campaign_id_in_another_spelling_is_refused(text: str) -> None:
    """What a UUID parser forgives, another version or variant, and a newline at the end name no campaign."""
    assert not is_campaign_id(text)
    with pytest.raises(ValidationError):
        TypeAdapter(CampaignId).validate_python(text)
