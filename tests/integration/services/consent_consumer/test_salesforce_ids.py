"""Whether MongoDB itself holds two ids equal exactly when their external ids are."""

from decimal import Decimal
from uuid import UUID

from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from pymongo.errors import DuplicateKeyError

from patterns import background
from runtime.mongo import open_mongo
from runtime.mongo_settings import MongoSettings
from services.consent_consumer.record import external_id

AN_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
IDS: list[object] = [
    *(0, 0.0, -0.0, Decimal128("-0"), Decimal128("0E-6176"), Decimal128("0E+6111")),
    *(1, Int64(1), 1.0, Decimal128("1"), Decimal128("1.000"), True, "1", {"a": 1}, {"a": 1.0}, {"a": True}),
    *(0.5, Decimal128("0.5"), Decimal128("0.50"), 0.1, Decimal128("0.1"), Decimal128(str(Decimal(0.125)))),  # noqa: RUF032
    *(2**53, 2.0**53, 2**53 + 1, Decimal128(str(2**53 + 1)), 2**63 - 1, 2.0**63, Decimal128(str(2**63))),
    *(1e22, Decimal128("1E+22"), Decimal128("10000000000000000000000"), 1e23, Decimal128("1E+23")),
    *(Decimal128("1E+6144"), Decimal128("1.0E+6144"), Decimal128("1E-6176"), 5e-324),
    *(float("inf"), Decimal128("Infinity"), float("-inf"), float("nan"), -float("nan"), Decimal128("NaN")),
    *({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"b": 2.0, "a": Int64(1)}, {"a": [1]}, {"a": [1.0]}, {"a": [1, 1]}),
    *("a", "A", "a ", "a\x00", "\u00e9", "e\u0301", "x" * 300, "x" * 301, b"a", Code("a"), Code("a", {"b": 1})),
    *(AN_ID, Binary(AN_ID.bytes, 4), Binary(AN_ID.bytes, 3), Binary(AN_ID.bytes, 0), Binary(b"a", 2)),
    *(None, {}, {"a": None}, MinKey(), MaxKey(), Timestamp(1, 1), Timestamp(1, 2), ObjectId("0" * 24), "0" * 24),
    *(Code("a", {"b": 1.0}), {"$ref": "c", "$id": 1}, {"$ref": "c", "$id": 1.0}),
]


async def test_mongodb_and_the_external_id_agree_on_which_ids_are_one(mongo_settings: MongoSettings) -> None:
    """Every id is inserted alone: MongoDB refuses exactly those whose external id was there before."""
    seen: set[str] = set()
    async with open_mongo(background(), mongo_settings, application_name="test") as database:
        things = database.collection("things")
        for document_id in IDS:
            name = external_id(document_id)
            try:
                await things.insert_one({"_id": document_id})
            except DuplicateKeyError:
                assert name in seen, document_id
            else:
                assert name not in seen, document_id
            seen.add(name)
        found = {external_id(each["_id"]) async for each in things.find({}, {"_id": 1})}
    assert found == seen
    assert 40 < len(seen) < len(IDS) - 20
