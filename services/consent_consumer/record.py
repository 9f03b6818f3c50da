"""What a consent is called and looks like in Salesforce: pure functions of a document and of when it was changed.

A record's external id says which document it stands for, its version which change of it, and a document that is gone
is a record that is marked: nothing is ever deleted there.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from typing import Final, TypeAlias
from unicodedata import is_normalized
from uuid import UUID

import bson
from bson import Binary, Code, CodecOptions, DBRef, Decimal128, ObjectId, Timestamp
from bson.binary import UUID_SUBTYPE, UuidRepresentation
from bson.decimal128 import create_decimal128_context

from loyalty.consent import ConsentDetail, ConsentMaster
from services.consent_consumer.errors import VersionOverflowError

MASTER_OBJECT: Final = "ConsentMaster__c"
DETAIL_OBJECT: Final = "ConsentDetail__c"
EXTERNAL_ID: Final = "ExternalId__c"
EXTERNAL_ID_CHARACTERS_MAX: Final = 255
INCREMENTS_PER_SECOND: Final = 1_000_000

Record: TypeAlias = dict[str, object]
"""The fields of one record of Salesforce, as JSON can hold them."""

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_TEXT_BYTES_MAX = EXTERNAL_ID_CHARACTERS_MAX - len("s:")
_OPTIONS = CodecOptions[dict[str, object]](uuid_representation=UuidRepresentation.STANDARD)
_DECIMAL128 = create_decimal128_context()


def external_id(document_id: object) -> str:
    """Return the external id of a document: the same for ids that MongoDB holds equal, and for no others.

    MongoDB compares numbers by their value, whatever their types, and documents field by field in order. An ObjectId
    gives `o:<hex>`, text `s:<text>`, a whole number of 64 bits `i:<n>`, a UUID `u:<uuid>`, and everything else
    `h:<SHA-256 of it in BSON, each number in the one form chosen for its value>`. So does a text that would be too
    long, and one that Salesforce may not keep as it is: it takes spaces off the end and may compose characters.

    The field in Salesforce has to be unique and *case-sensitive*, which is not its default.

    Args:
        document_id: as PyMongo decodes it.
    """
    if isinstance(document_id, ObjectId):
        return f"o:{document_id.binary.hex()}"
    if type(document_id) is str and _is_kept(document_id):
        return f"s:{document_id}"
    if isinstance(document_id, UUID):
        return f"u:{document_id}"
    if isinstance(document_id, Binary) and document_id.subtype == UUID_SUBTYPE and len(document_id) == 16:
        return f"u:{UUID(bytes=bytes(document_id))}"
    canonical = _canonical(document_id)
    if type(canonical) is int:
        return f"i:{canonical}"
    return f"h:{sha256(bson.encode({'': canonical}, codec_options=_OPTIONS)).hexdigest()}"


def _is_kept(text: str) -> bool:
    """Say whether Salesforce keeps a text as it is; its bytes are counted, since its characters are UTF-16's."""
    is_safe = text.isprintable() and not text.endswith(" ") and is_normalized("NFC", text)
    return is_safe and len(text.encode()) <= _TEXT_BYTES_MAX


def _canonical(value: object) -> object:
    """Return the one value that stands for all those that MongoDB holds equal to this one."""
    match value:
        case bool():
            return value
        case int():
            return int(value)
        case float() | Decimal128():
            return _canonical_number(Decimal(value) if isinstance(value, float) else value.to_decimal())
        case Mapping():
            return {name: _canonical(each) for name, each in value.items()}
        case list():
            return [_canonical(each) for each in value]
        case DBRef():
            return _canonical(value.as_doc())
        case Code() if value.scope is not None:
            return Code(str(value), {name: _canonical(each) for name, each in value.scope.items()})
    return value


def _canonical_number(number: Decimal) -> int | float | Decimal128:
    """Return a number as an integer of 64 bits if it is one, else as a double if it is one, else as a Decimal128."""
    if number.is_nan():
        return math.nan
    if _INT64_MIN <= number <= _INT64_MAX and number == int(number):
        return int(number)
    double = float(number)
    if Decimal(double) == number:
        return double
    return Decimal128(_DECIMAL128.normalize(number))


def version(cluster_time: Timestamp) -> int:
    """Return the version of a change: its cluster time as one number, which rises with it.

    It is less than 2**53. A field Number(18,0) looks as if it held 18 digits, but Salesforce computes with it as with a
    double, and two versions beyond that could be equal there.

    Raises:
        VersionOverflowError: A million changes or more came before it within its second. That is far beyond what
            MongoDB can do, and its version would be that of a change of the next second.
    """
    if cluster_time.inc >= INCREMENTS_PER_SECOND:
        raise VersionOverflowError(f"increment {cluster_time.inc} is not below {INCREMENTS_PER_SECOND}")
    return cluster_time.time * INCREMENTS_PER_SECOND + cluster_time.inc


def master_record(master: ConsentMaster, at_version: int) -> Record:
    """Return the record of a consent that stands in `consent_master`."""
    return {
        EXTERNAL_ID: external_id(master.document_id),
        "MemberId__c": master.member_id,
        "Status__c": master.status,
        "PolicyVersion__c": master.policy_version,
        "Channel__c": master.channel,
        "ChangedAt__c": master.changed_at.isoformat(timespec="milliseconds"),
        "Deleted__c": False,
        "Version__c": at_version,
    }


def detail_record(detail: ConsentDetail, at_version: int) -> Record:
    """Return the record of a detail that stands in `consent_detail`; it names its master by the external id."""
    return {
        EXTERNAL_ID: external_id(detail.document_id),
        "Master__r": {EXTERNAL_ID: external_id(detail.master_id)},
        "Purpose__c": detail.purpose,
        "Granted__c": detail.is_granted,
        "ChangedAt__c": detail.changed_at.isoformat(timespec="milliseconds"),
        "Deleted__c": False,
        "Version__c": at_version,
    }


def deleted_record(document_id: object, at_version: int) -> Record:
    """Return the record of a document that is gone, of either collection; what else the record holds stays there."""
    return {EXTERNAL_ID: external_id(document_id), "Deleted__c": True, "Version__c": at_version}
