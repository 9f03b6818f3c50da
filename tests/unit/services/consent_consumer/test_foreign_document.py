"""What members' documents may hold, and what of it a stream can read."""

from typing import Any

import bson
import pytest
from bson import ObjectId, Timestamp
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from services.consent_consumer.foreign_document import FIELD_BY_FIELD, FOREIGN, ForeignDocument
from services.consent_consumer.record import external_id
from tests.support.consent_sample import IDS, NO_UUID, VALUES


def _event(document: dict[str, Any]) -> bytes:
    """Return an event about a document, as the server sends it."""
    return bson.encode(
        {
            "_id": {"_data": "82"},
            "operationType": "insert",
            "clusterTime": Timestamp(1, 1),
            "documentKey": {"_id": document["_id"]},
            "fullDocument": document,
        },
        codec_options=FIELD_BY_FIELD,
    )


@pytest.mark.parametrize("document_id", [*IDS, NO_UUID], ids=lambda each: type(each).__name__)
def test_document_of_any_id_reads_as_field_by_field(document_id: Any) -> None:  # noqa: ANN401 - BSON of any type
    """Whatever type an id has, what is read has the external id that reading field by field gives, and its bytes."""
    data = _event({"_id": document_id})
    event, field_by_field = ForeignDocument(data, FOREIGN), RawBSONDocument(data, FIELD_BY_FIELD)

    assert external_id(event["documentKey"]["_id"]) == external_id(field_by_field["documentKey"]["_id"])
    assert bson.encode(event["fullDocument"], codec_options=FIELD_BY_FIELD) == field_by_field["fullDocument"].raw
    assert event.raw == data


@pytest.mark.parametrize("name", VALUES)
def test_value_of_any_type_reads_as_field_by_field(name: str) -> None:
    """Whatever a field holds, it is written again as the bytes that it was read from."""
    data = _event({"_id": 1, "value": VALUES[name]})
    event, field_by_field = ForeignDocument(data, FOREIGN), RawBSONDocument(data, FIELD_BY_FIELD)

    assert bson.encode(event["fullDocument"], codec_options=FIELD_BY_FIELD) == field_by_field["fullDocument"].raw


def test_reference_like_id_keeps_the_order_of_its_fields() -> None:
    """Two ids that differ in the order of their fields, a `$ref` among them, have two external ids."""
    first, second = (
        external_id(ForeignDocument(_event({"_id": each}), FOREIGN)["documentKey"]["_id"])
        for each in ({"a": 1, "$ref": "x", "$id": 1}, {"$ref": "x", "$id": 1, "a": 1})
    )

    assert first != second


def test_field_that_cannot_be_decoded_leaves_the_event_readable() -> None:
    """An event whose document has broken text tells of which document it is, and the document itself raises."""
    event = ForeignDocument(_event({"_id": 7, "text": "broken"}).replace(b"broken", b"brok\xff\xff"), FOREIGN)

    assert event["documentKey"]["_id"] == 7
    with pytest.raises(BSONError):
        event["fullDocument"]["text"]


def test_event_is_decoded_at_once() -> None:
    """The document inside of an event is decoded with it: the driver has not renamed the method that is overridden."""
    event = ForeignDocument(_event({"_id": ObjectId(), "status": "granted"}), FOREIGN)

    assert type(event["fullDocument"]) is dict
