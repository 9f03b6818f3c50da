"""Values of every type that BSON has, as ids and as fields."""

import datetime as dt
import uuid
from typing import Any

from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import UUID_SUBTYPE

IDS: list[Any] = [
    MinKey(),
    None,
    float("nan"),
    -1,
    Int64(2**62),
    2.5,
    Decimal128("3.1"),
    "",
    "$name",
    "text",
    {"a": 1},
    DBRef("things", ObjectId()),
    Binary(b"bytes"),
    Binary.from_uuid(uuid.uuid4()),
    ObjectId(),
    False,
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
    DatetimeMS(10**17),  # the year 3,170,843
    Timestamp(1, 1),
    Code("x"),
    MaxKey(),
]
NO_UUID = Binary(b"no UUID", UUID_SUBTYPE)
"""An id that says what it is not, and that the driver will not decode."""
VALUES: dict[str, Any] = {
    **{f"id {number}": value for number, value in enumerate(IDS)},
    "reference": {"a": 1, "$ref": "x", "$id": 1},  # decoded it is a DBRef, whose fields come in another order
    "list": [1, [None, {"x": Int64(1)}]],
    "pattern": Regex("^a", "i"),
    "code with scope": Code("x", {"x": 1}),
    "subtype": Binary(b"x", 0x80),
    "legacy uuid": Binary(b"0123456789abcdef", 3),
    "text": "nul \0 and 😀",
    "deep": {"d": {"e": {"f": {}}}},
}
