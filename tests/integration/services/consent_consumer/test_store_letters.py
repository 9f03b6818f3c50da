"""Events of any BSON, any name and any size among the dead letters."""

from typing import Any

import bson
import pytest
from bson import Timestamp
from bson.raw_bson import RawBSONDocument

from services.consent_consumer.dead_letters import EVENT_BYTES_MAX, DeadLetters, letter_id_of
from services.consent_consumer.foreign_document import FIELD_BY_FIELD
from tests.support.consent_letter_contract import ALL, some_letter
from tests.support.consent_sample import IDS, VALUES
from tests.support.consent_store_contract import LONG, MASTER


async def test_event_of_every_type_and_name_comes_back_byte_for_byte(letters: DeadLetters) -> None:
    """Types that Python has no name for, names that mean something in a query, and documents within documents."""
    event = {
        "_id": {"_data": "82"},
        "fullDocument": VALUES,
        "$set": {"a.b": 1, "": 2},
        "updated": {"x.0.$y": {"$z": 1}},
    }
    raw = RawBSONDocument(bson.encode(event, codec_options=FIELD_BY_FIELD))
    letter = some_letter(event=raw)
    await letters.bury([letter])
    shown = await letters.show(letter.letter_id)
    claimed = await letters.claim("a", ALL, None, LONG)

    assert shown is not None
    assert claimed is not None
    assert isinstance(shown.event, RawBSONDocument)
    assert isinstance(claimed.event, RawBSONDocument)
    assert shown.event.raw == claimed.event.raw == raw.raw
    assert shown.event_bytes == len(raw.raw)
    assert await letters.give_back(letter.letter_id, "a", "again")
    again = await letters.show(letter.letter_id)
    assert again is not None
    assert again.event == raw


@pytest.mark.parametrize("document_id", IDS, ids=lambda value: type(value).__name__)
def test_event_id_of_every_type_names_a_letter(document_id: object) -> None:
    """The name has 32 digits, and is the same each time."""
    name = letter_id_of(MASTER, document_id)

    assert len(name) == 32
    assert name == letter_id_of(MASTER, document_id) != letter_id_of("other", document_id)


def sized(size: int, *, in_key: bool = False) -> dict[str, Any]:
    """Return an event of exactly so many bytes, almost all of them in its document or in its key."""
    event: dict[str, Any] = {
        "_id": {"_data": "82"},
        "operationType": "insert",
        "clusterTime": Timestamp(7, 1),
        "documentKey": {"_id": "" if in_key else 7},
        "fullDocument": {"text": ""},
    }
    text = "x" * (size - len(bson.encode(event)))
    if in_key:
        event["documentKey"] = {"_id": text}
    else:
        event["fullDocument"] = {"text": text}
    assert len(bson.encode(event)) == size
    return event


async def test_largest_event_is_kept_whole(letters: DeadLetters) -> None:
    """15 MB are an event that the letter still has room around."""
    letter = some_letter(event=sized(EVENT_BYTES_MAX), cause="x" * 2_000)
    await letters.bury([letter])
    shown = await letters.show(letter.letter_id)

    assert shown is not None
    assert (shown.is_whole, shown.event_bytes) == (True, EVENT_BYTES_MAX)
    assert len(shown.event["fullDocument"]["text"]) > 14_000_000


async def test_event_above_the_bound_keeps_its_key_and_says_so(letters: DeadLetters) -> None:
    """Which document it was, when and what was done to it are there; its content is not, and its size is told."""
    letter = some_letter(event=sized(EVENT_BYTES_MAX + 1))
    await letters.bury([letter])
    shown = await letters.show(letter.letter_id)

    assert shown is not None
    assert (shown.is_whole, shown.event_bytes) == (False, EVENT_BYTES_MAX + 1)
    assert bson.decode(bson.encode(shown.event)) == {
        "operationType": "insert",
        "clusterTime": Timestamp(7, 1),
        "_id": {"_data": "82"},
        "documentKey": {"_id": 7},
    }


async def test_event_whose_key_is_too_large_is_a_letter_all_the_same(letters: DeadLetters) -> None:
    """It is told apart by its token, and what has no room is left out."""
    letter = some_letter(event=sized(EVENT_BYTES_MAX + 1_000, in_key=True))
    assert await letters.bury([letter, some_letter(2)]) == 2
    shown = await letters.show(letter.letter_id)

    assert shown is not None
    assert set(shown.event) == {"operationType", "clusterTime", "_id"}
