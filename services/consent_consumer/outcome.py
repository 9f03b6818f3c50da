"""What became of one record of a call, as Salesforce tells it, and what that asks of whoever sent it.

Status codes decide; a message is looked at only where its code means two things. Messages come in the language of the
user that the connected app runs as, so that has to be English.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.consent_consumer.settings import RetrySettings

DUPLICATE_EXTERNAL_ID: Final = "DUPLICATE_EXTERNAL_ID"
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,79}")
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,79}")
_FIELDS_MAX = 10
_VALIDATION = "FIELD_CUSTOM_VALIDATION_EXCEPTION"
_MISSING_MASTER = ("INVALID_FIELD", "Foreign key external ID:")


class Verdict(StrEnum):
    """What to do about a record. Of several errors of one record the verdict that stands first here counts."""

    __hash__ = str.__hash__  # an enum's own is Python, and each change is asked for it several times

    STORED = "stored"
    """Nothing: it is there."""
    OLDER = "older"
    """Nothing: a newer version is there, and this one never will be."""
    REFUSED = "refused"
    """Put it with the dead letters: it will be refused again."""
    UNKNOWN = "unknown"
    """Try a few times, then put it with the dead letters: nobody has told what this code means."""
    LATER = "later"
    """Try again after a while: what stands in its way may go."""


_VERDICTS: Final = {
    "UNABLE_TO_LOCK_ROW": Verdict.LATER,
    "DUPLICATE_VALUE": Verdict.LATER,  # two calls created the record at the same time; now it is there
    **dict.fromkeys(
        (
            _VALIDATION,
            DUPLICATE_EXTERNAL_ID,
            "DUPLICATES_DETECTED",
            "FIELD_FILTER_VALIDATION_EXCEPTION",
            "FIELD_INTEGRITY_EXCEPTION",
            "INVALID_FIELD",
            "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST",
            "INVALID_TYPE_ON_FIELD_IN_RECORD",
            "MISSING_ARGUMENT",
            "NUMBER_OUTSIDE_VALID_RANGE",
            "REQUIRED_FIELD_MISSING",
            "STRING_TOO_LONG",
        ),
        Verdict.REFUSED,
    ),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A verdict and its reason.

    Attributes:
        verdict: what is to be done.
        code: Salesforce's status code; nothing for a record that is stored.
        detail: which fields are at fault, and never what stood in them.
    """

    verdict: Verdict
    code: str = ""
    detail: str = ""

    @property
    def is_alarm(self) -> bool:
        """Whether a person has to look: two records in Salesforce bear one external id, so it is not unique there."""
        return self.code == DUPLICATE_EXTERNAL_ID

    def may_be_tried_again(self, tries: int, retry: RetrySettings) -> bool:
        """Say whether the record may be sent once more, after so many tries."""
        tries_max = {Verdict.LATER: retry.later_tries, Verdict.UNKNOWN: retry.unknown_tries}
        return tries < tries_max.get(self.verdict, 0)


STORED: Final = Outcome(Verdict.STORED)


def is_code(text: str) -> bool:
    """Say whether a text from outside is a status code, and so can be told to anybody."""
    return _CODE.fullmatch(text) is not None


class UnreadableResultError(ValueError):
    """The result of a record is no result."""


def judge(results: Iterable[object], version_rule: str) -> list[Outcome]:
    """Return the outcome of each record of a call, in their order.

    Args:
        results: decoded from JSON.
        version_rule: with what the message of the validation rule on versions begins.

    Raises:
        UnreadableResultError: One of them is not what Salesforce sends, so none of them can be believed.
    """
    return [_judge(result, version_rule) for result in results]


def _judge(result: object, version_rule: str) -> Outcome:
    if not isinstance(result, dict):
        raise UnreadableResultError
    is_stored, errors = result.get("success"), result.get("errors")
    if is_stored is True and not errors:
        return STORED
    if is_stored is not False or not isinstance(errors, list) or not errors:
        raise UnreadableResultError
    return min((_judge_error(error, version_rule) for error in errors), key=_precedence)


def _judge_error(error: object, version_rule: str) -> Outcome:
    if not isinstance(error, dict):
        raise UnreadableResultError
    given, message = error.get("statusCode"), error.get("message")
    if not isinstance(given, str):
        raise UnreadableResultError
    if not is_code(given):
        return Outcome(Verdict.UNKNOWN, "UNREADABLE")
    text = message if isinstance(message, str) else ""
    if given == _VALIDATION and text.startswith(version_rule):
        return Outcome(Verdict.OLDER, given, "a newer version is stored")
    if given == _MISSING_MASTER[0] and text.startswith(_MISSING_MASTER[1]):
        return Outcome(Verdict.LATER, given, "its master is not stored")
    return Outcome(_VERDICTS.get(given, Verdict.UNKNOWN), given, _fields(error.get("fields")))


def _fields(given: object) -> str:
    if not isinstance(given, list):
        return ""
    names = (name for name in given[:_FIELDS_MAX] if isinstance(name, str) and _FIELD.fullmatch(name) is not None)
    return ", ".join(names)


_ORDER: Final = {verdict: place for place, verdict in enumerate(Verdict)}


def _precedence(outcome: Outcome) -> int:
    return _ORDER[outcome.verdict]
