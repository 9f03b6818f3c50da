"""Hold an amount of money as integer cents and an ISO 4217 code; a float never comes near it."""

import re
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, StringConstraints

CURRENCY_PATTERN: Final = r"^[A-Z]{3}$"
MAX_CENTS: Final = 100_000_000_000
"""The largest amount, a thousand million units: exact in JSON, in a bigint and in any spreadsheet."""

Cents = Annotated[int, Field(strict=True, ge=0, le=MAX_CENTS)]
Currency = Annotated[str, StringConstraints(strict=True, pattern=CURRENCY_PATTERN)]

_CURRENCY: Final = re.compile(CURRENCY_PATTERN)


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in the smallest unit of its currency.

    The currency has the shape of an ISO 4217 code. The list of codes in force changes every few years, so it belongs to
    those who decide what may be issued, not to a type that must also read what was issued before.

    Raises:
        TypeError: The cents are no integer; a bool is none.
        ValueError: The cents are outside 0 to `MAX_CENTS`, or the currency is not three capital letters.
    """

    cents: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.cents) is not int:
            raise TypeError("cents must be an int")
        if not 0 <= self.cents <= MAX_CENTS:
            raise ValueError(f"cents must be from 0 to {MAX_CENTS}")
        if _CURRENCY.fullmatch(self.currency) is None:
            raise ValueError("currency must be three capital letters")
