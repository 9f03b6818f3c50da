"""Decode documents that others write, of whatever BSON holds, so that none of them can stop a stream."""

from collections.abc import Mapping
from typing import Any, Final

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument


class ForeignDocument(RawBSONDocument):
    """A document byte for byte, which is decoded when a field of it is asked for.

    It is then decoded whole, with the documents inside of it: field by field, as its base does it, costs several times
    as much. Only what would not be the same is left to the base: what cannot be decoded, which the field that is asked
    for may not be part of, and what has a `$ref` in it, of which the driver would make a `DBRef` with its fields in
    another order. The method is the driver's own; should it get another name, all goes on at the base's price.
    """

    __slots__ = ()

    @staticmethod
    def _inflate_bson(
        bson_bytes: bytes | memoryview,
        codec_options: CodecOptions[RawBSONDocument],
    ) -> Mapping[str, Any]:
        if b"$ref" not in bytes(bson_bytes):
            try:
                return bson.decode(bson_bytes, _PLAIN)
            except BSONError:
                pass
        return RawBSONDocument._inflate_bson(bson_bytes, codec_options)  # noqa: SLF001 - its own base's


FIELD_BY_FIELD: Final[CodecOptions[RawBSONDocument]] = CodecOptions(
    document_class=RawBSONDocument,
    tz_aware=True,
    # A UUID stays a `Binary`, for one of a wrong length would not decode, and a time beyond Python's is a `DatetimeMS`.
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""Keeps documents byte for byte, also those inside of another one, such as of an answer that brings many."""

FOREIGN: Final[CodecOptions[RawBSONDocument]] = FIELD_BY_FIELD.with_options(document_class=ForeignDocument)

_PLAIN: Final[CodecOptions[dict[str, Any]]] = FOREIGN.with_options(document_class=dict)
