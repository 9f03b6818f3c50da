"""The reader of changes on a driver that is not there: the end of a context, and errors that are told as they come."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import pytest
from bson import Timestamp
from pymongo.errors import OperationFailure

from patterns import Channel, background, bubble, wait_idle
from runtime.mongo import MongoDatabase
from services.consent_consumer.change_stream import CONSENT_MASTER, Change, ChangeReader, iterate_change_stream
from services.consent_consumer.errors import PositionLostError
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.settings import RetrySettings
from services.consent_consumer.store import Position


def test_context_ends_a_stream_whose_driver_knows_nothing_of_the_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer was there in the same tick, so it is returned in place of the cancel; no other question is asked."""
    asked: list[float] = []

    async def quiet_second(_: ChangeReader) -> None:
        asked.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            return  # as `asyncio.wait_for` does before Python 3.12

    async def scene() -> None:
        begin = Position(Timestamp(1, 1), None)
        reader = ChangeReader(
            cast("MongoDatabase", None),
            CONSENT_MASTER,
            StreamLedger(1, begin),
            begin,
            events_max=1,
            retry=RetrySettings(),
        )
        changes: Channel[Change] = Channel(1)
        with background().with_cancel() as ctx:
            reading = asyncio.create_task(iterate_change_stream(ctx, reader, changes))
            await wait_idle()
            ctx.cancel()
            async with asyncio.timeout(60):
                await reading
        assert len(asked) == 1

    monkeypatch.setattr(ChangeReader, "_try_next", quiet_second)
    bubble(scene)


INTERNAL, INTERRUPTED, CURSOR_KILLED, CURSOR_NOT_FOUND, UNAUTHORIZED = 1, 11_601, 237, 43, 13
TOKEN_REFUSED, HISTORY_LOST, READ_TOO_SLOWLY, TOO_LARGE = 280, 286, 136, 10_334
QUIET = None
EVENT: dict[str, Any] = {
    "_id": {"_data": "82"},
    "clusterTime": Timestamp(2, 1),
    "operationType": "insert",
    "documentKey": {"_id": "a"},
}

Answer = dict[str, Any] | int | None  # Any: BSON
"""What the driver gives: an event, the code of an error, or nothing within a second."""


class ScriptedStream:
    """A stream that answers as it is told."""

    resume_token = None

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = list(answers)

    async def try_next(self) -> dict[str, Any] | None:
        """Give the next answer."""
        answer = self._answers.pop(0)
        if isinstance(answer, int):
            raise OperationFailure("told to", answer)
        return answer

    async def close(self) -> None:
        """Do nothing."""


class ScriptedDatabase:
    """A database that opens these streams, one after the other, or refuses with a code."""

    def __init__(self, *openings: Sequence[Answer] | int) -> None:
        self.openings = list(openings)

    def call(self) -> AbstractContextManager[None]:
        """Change no error."""
        return nullcontext()

    async def watch(self, *_: object, **__: object) -> ScriptedStream:
        """Open the next stream."""
        opening = self.openings.pop(0)
        if isinstance(opening, int):
            raise OperationFailure("told to", opening)
        return ScriptedStream(opening)


def read_one(*openings: Sequence[Answer] | int) -> Change:
    """Return the next change of a stream that meets all of this, on a clock of its own."""

    async def scene() -> Change:
        database = ScriptedDatabase(*openings)
        begin = Position(Timestamp(1, 1), {"_data": "81"})
        ledger = StreamLedger(1, begin)
        reader = ChangeReader(
            cast("MongoDatabase", database), CONSENT_MASTER, ledger, begin, events_max=9, retry=RetrySettings()
        )
        found = await reader.read(background())
        await reader.aclose()
        assert database.openings == []
        return found

    return bubble(scene)


@pytest.mark.parametrize("code", [INTERNAL, INTERRUPTED, CURSOR_KILLED, CURSOR_NOT_FOUND, UNAUTHORIZED])
def test_an_error_of_an_open_stream_is_no_word_about_its_position(code: int) -> None:
    """A stream that has answered was opened from where it stood: it is opened there again."""
    assert read_one([QUIET, code], [EVENT]).document_id == "a"


@pytest.mark.parametrize("code", [INTERRUPTED, CURSOR_KILLED, CURSOR_NOT_FOUND, UNAUTHORIZED])
def test_an_opening_that_was_interrupted_or_forbidden_is_tried_again(code: int) -> None:
    """Neither says anything of the position, and both pass."""
    assert read_one(code, [code], [EVENT]).document_id == "a"


@pytest.mark.parametrize("refusal", [TOKEN_REFUSED, [TOKEN_REFUSED]], ids=["by the opening", "by its first answer"])
def test_a_refused_opening_is_the_positions_end(refusal: list[Answer] | int) -> None:
    """Also where it follows on an error that said nothing; a server may refuse a token by its first answer."""
    with pytest.raises(PositionLostError) as raised:
        read_one([QUIET, INTERNAL], refusal)
    assert (raised.value.code, raised.value.is_history_lost) == (TOKEN_REFUSED, False)


@pytest.mark.parametrize("code", [HISTORY_LOST, READ_TOO_SLOWLY])
def test_a_history_that_is_lost_is_told_at_once(code: int) -> None:
    """An open stream knows it too."""
    with pytest.raises(PositionLostError) as raised:
        read_one([QUIET, code])
    assert (raised.value.code, raised.value.is_history_lost) == (code, True)


def test_an_event_too_large_by_its_key_alone_is_told_wherever_it_comes() -> None:
    """Asked for alone, and then without its document, it has no room all the same."""
    with pytest.raises(PositionLostError) as raised:
        read_one([QUIET, TOO_LARGE], [QUIET, TOO_LARGE], [QUIET, TOO_LARGE])
    assert (raised.value.code, raised.value.is_history_lost) == (TOO_LARGE, False)
