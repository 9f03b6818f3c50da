"""The audit names documents as the service does, and reads them as the journal has them."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from sandbox.consent_document import content_of, name_of
from services.consent_consumer.record import external_id

_IDS = st.one_of(
    st.from_regex(r"m-[0-9]{1,4}/[0-9a-f]{16}", fullmatch=True),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.uuids(),
    st.integers(0, 2**62),
)


@given(_IDS)
def test_name_is_the_external_id_that_the_service_makes(document_id: object) -> None:
    """For every id that the apps make, the name made here is the one that the record must bear."""
    assert name_of(document_id) == external_id(document_id)


@pytest.mark.parametrize("document_id", [None, True, 1.5, b"bytes", {"a": 1}])
def test_id_that_no_app_makes_has_a_name_that_no_record_bears(document_id: object) -> None:
    """An id of another type is never taken for one of ours."""
    assert name_of(document_id).startswith("?:")


def test_content_is_what_json_can_hold() -> None:
    """The id is left out, times are text in UTC, a master is its name, and all else is as it is."""
    document = {
        "_id": 7,
        "master_id": UUID(int=1),
        "changed_at": datetime(2026, 3, 1, 12, 0, 0, 5_000, tzinfo=timezone(timedelta(hours=2))),
        "is_granted": True,
        "policy_version": "2026-1",
    }
    assert content_of(document) == {
        "master_id": "u:00000000-0000-0000-0000-000000000001",
        "changed_at": datetime(2026, 3, 1, 10, tzinfo=UTC)
        .replace(microsecond=5_000)
        .isoformat(timespec="milliseconds"),
        "is_granted": True,
        "policy_version": "2026-1",
    }
