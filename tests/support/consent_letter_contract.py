"""What every keeper of dead letters must do: one test body, run on the fake and on the real one.

A test class inherits `DeadLetterContract` and has a fixture `letters`, which has none yet.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson import Timestamp

from services.consent_consumer.dead_letters import (
    EVENT_BYTES_MAX,
    DeadLetter,
    DeadLetters,
    LetterFilter,
    LetterPosition,
    letter_id_of,
)
from tests.support.consent_sample import NO_UUID
from tests.support.consent_store_contract import DETAIL, LONG, MASTER, SHORT
from tests.support.eventually import eventually

NOW = datetime.now(UTC).replace(microsecond=0)
ALL = LetterFilter()


def some_letter(number: int = 1, **fields: Any) -> DeadLetter:  # noqa: ANN401 - whatever a letter has
    """Return a letter that failed so many seconds after the first one."""
    event = {"_id": {"_data": f"82{number:08X}"}, "operationType": "insert", "documentKey": {"_id": number}}
    stream = fields.get("stream", MASTER)
    given: dict[str, Any] = {
        "letter_id": letter_id_of(stream, event["_id"]),
        "stream": MASTER,
        "event": event,
        "error_class": "refused",
        "codes": ("DUPLICATES_DETECTED",),
        "tries": 1,
        "cause": "Use one of these records?",
        "first_tried_at": NOW - timedelta(minutes=5),
        "failed_at": NOW + timedelta(seconds=number),
    }
    return DeadLetter(**{**given, **fields})


class DeadLetterContract:
    """The tests of the dead letters."""

    async def test_buried_letter_is_shown_whole_and_once(self, letters: DeadLetters) -> None:
        """What comes back is what went in, measured; to bury it again changes nothing."""
        letter = some_letter()
        assert await letters.bury([letter]) == 1
        again = some_letter(tries=9, cause="another")
        assert await letters.bury([again, some_letter(2)]) == 1
        assert await letters.bury([]) == 0
        shown = await letters.show(letter.letter_id)

        assert shown is not None
        assert (shown.cause, shown.tries, shown.codes) == (letter.cause, 1, ("DUPLICATES_DETECTED",))
        assert (shown.first_tried_at, shown.failed_at) == (letter.first_tried_at, letter.failed_at)
        assert shown.is_whole
        assert shown.event_bytes > 0
        assert bson.decode(bson.encode(shown.event)) == letter.event
        assert await letters.count() == 2
        assert await letters.show("0" * 32) is None

    async def test_event_of_an_id_that_python_cannot_decode_is_shown_and_claimed(self, letters: DeadLetters) -> None:
        """An id may say that it is a UUID and be none: whoever looks at its letter, or replays it, gets its bytes."""
        letter = some_letter(event={"_id": {"_data": "82"}, "documentKey": {"_id": NO_UUID}})
        await letters.bury([letter])
        shown = await letters.show(letter.letter_id)
        claimed = await letters.claim("a", ALL, None, LONG)

        assert shown is not None
        assert claimed is not None
        assert shown.event["documentKey"]["_id"] == claimed.event["documentKey"]["_id"] == NO_UUID

    async def test_same_event_id_in_another_stream_is_another_letter(self, letters: DeadLetters) -> None:
        """Streams do not meet."""
        assert await letters.bury([some_letter(), some_letter(stream=DETAIL)]) == 2

    async def test_dead_documents_are_those_with_a_letter_of_that_time_or_later(self, letters: DeadLetters) -> None:
        """Of this stream alone, of those that were asked for, also when the event had no room, and once each."""
        at = Timestamp(2_000, 1)
        told = [
            ("s:now", at, MASTER),
            ("s:now", Timestamp(2_000, 2), MASTER),
            ("s:later", Timestamp(2_001, 1), MASTER),
            ("s:before", Timestamp(1_999, 9), MASTER),
            ("s:another stream's", at, DETAIL),
            ("s:not asked for", at, MASTER),
            ("s:large", at, MASTER),
        ]
        for number, (external_id, time, stream) in enumerate(told):
            event = {
                "_id": {"resync": time, "document": number},
                "operationType": "resync",
                "clusterTime": time,
                "documentKey": {"_id": number},
                "fullDocument": {"x": "x" * EVENT_BYTES_MAX} if external_id == "s:large" else {},
            }
            letter_id = letter_id_of(stream, event["_id"])
            letter = some_letter(stream=stream, external_id=external_id, letter_id=letter_id, event=event)
            assert await letters.bury([letter]) == 1
        asked = [each for each, _, _ in told if each != "s:not asked for"]

        assert await letters.find_dead(MASTER, asked, at) == {"s:now", "s:later", "s:large"}
        assert await letters.find_dead(MASTER, [], at) == set()

    async def test_pages_show_each_letter_once_oldest_first(self, letters: DeadLetters) -> None:
        """Seven letters, three of them of one instant, in pages of three, without their events."""
        times = [NOW + timedelta(seconds=second) for second in (5, 1, 3, 3, 3, 9, 7)]
        buried = [some_letter(number, failed_at=time) for number, time in enumerate(times)]
        await letters.bury(buried)
        pages: list[list[DeadLetter]] = []
        after: LetterPosition | None = None
        while page := await letters.list(ALL, after, 3):
            pages.append(page)
            after = LetterPosition(page[-1].failed_at, page[-1].letter_id)

        found = [letter for page in pages for letter in page]
        expected = sorted((letter.failed_at, letter.letter_id) for letter in buried)
        assert [(letter.failed_at, letter.letter_id) for letter in found] == expected
        assert [len(page) for page in pages] == [3, 3, 1]
        assert all(dict(letter.event) == {} for letter in found)

    @pytest.mark.parametrize(
        ("wanted", "numbers"),
        [
            (LetterFilter(stream=DETAIL), {2, 3}),
            (LetterFilter(error_class="unknown"), {3}),
            (LetterFilter(stream=MASTER, error_class="refused"), {1}),
            (LetterFilter(letter_id=letter_id_of(MASTER, {"_data": "8200000001"})), {1}),
            (LetterFilter(stream="$stream"), set()),
        ],
    )
    async def test_only_wanted_letters_are_listed_and_claimed(
        self, letters: DeadLetters, wanted: LetterFilter, numbers: set[int]
    ) -> None:
        """By stream, by class, by both, by name."""
        buried = [some_letter(1), some_letter(2, stream=DETAIL), some_letter(3, stream=DETAIL, error_class="unknown")]
        await letters.bury(buried)
        listed = await letters.list(wanted, None, 10)
        claimed = [letter.letter_id async for letter in _claims(letters, wanted)]

        expected = [buried[number - 1].letter_id for number in sorted(numbers)]
        assert [letter.letter_id for letter in listed] == expected
        assert claimed == expected

    async def test_two_operators_replay_no_letter_twice(self, letters: DeadLetters) -> None:
        """Twenty letters, two who claim until there is none: each letter is claimed by one, settled once and gone."""
        await letters.bury([some_letter(number) for number in range(20)])

        async def replay() -> list[str]:
            done = []
            claim_id = str(uuid.uuid4())
            while letter := await letters.claim(claim_id, ALL, None, LONG):
                assert dict(letter.event)
                assert await letters.settle(letter.letter_id, claim_id)
                done.append(letter.letter_id)
            return done

        one, two = await asyncio.gather(replay(), replay())

        assert sorted(one + two) == sorted(some_letter(number).letter_id for number in range(20))
        assert await letters.list(ALL, None, 10) == []

    async def test_claim_that_ran_out_goes_to_the_next_and_the_first_settles_nothing(
        self, letters: DeadLetters
    ) -> None:
        """Who went away in the middle leaves the letter to another, and finds out when it comes back."""
        letter = some_letter()
        await letters.bury([letter])
        assert await letters.claim("a", ALL, None, SHORT)

        async def is_taken() -> bool:
            return await letters.claim("b", ALL, None, LONG) is not None

        await eventually(is_taken, seconds=30)

        assert not await letters.settle(letter.letter_id, "a")
        assert not await letters.give_back(letter.letter_id, "a", "late")
        assert await letters.settle(letter.letter_id, "b")
        assert not await letters.settle(letter.letter_id, "b")

    async def test_letter_given_back_is_free_with_one_more_try(self, letters: DeadLetters) -> None:
        """The next one sees why the last replay failed."""
        letter = some_letter()
        await letters.bury([letter])
        assert await letters.claim("a", ALL, None, LONG)
        assert await letters.claim("b", ALL, None, LONG) is None
        assert await letters.give_back(letter.letter_id, "a", "still refused")
        found = await letters.claim("b", ALL, None, LONG)

        assert found is not None
        assert (found.cause, found.tries) == ("still refused", 2)

    async def test_letter_given_back_without_an_answer_is_free_as_it_was(self, letters: DeadLetters) -> None:
        """Nobody said anything of its event, so neither its cause nor its tries change."""
        letter = some_letter()
        await letters.bury([letter])
        assert await letters.claim("a", ALL, None, LONG)
        assert not await letters.give_back(letter.letter_id, "b", None)
        assert await letters.give_back(letter.letter_id, "a", None)
        found = await letters.claim("b", ALL, None, LONG)

        assert found is not None
        assert (found.cause, found.tries) == (letter.cause, letter.tries)

    async def test_text_that_is_too_long_or_no_text_is_cut_to_its_bound(self, letters: DeadLetters) -> None:
        """A cause of any length, with half a character in it, and many long codes."""
        letter = some_letter(cause="\ud800" + "x" * 100_000, codes=("y" * 1_000,) * 100)
        await letters.bury([letter])
        shown = await letters.show(letter.letter_id)

        assert shown is not None
        assert shown.cause == "?" + "x" * 1_999
        assert shown.codes == ("y" * 100,) * 20

    async def test_old_letters_go_oldest_first_a_bounded_number_at_a_time(self, letters: DeadLetters) -> None:
        """Of five letters three are old: two go, then one, then none; one that is being replayed stays."""
        ages = {1: 10, 2: 9, 3: 8, 4: 1, 5: 0}
        await letters.bury([some_letter(n, failed_at=NOW - timedelta(days=days)) for n, days in ages.items()])
        week = timedelta(days=7)
        assert await letters.remove_old(week, 2) == 2
        assert await letters.claim("a", ALL, None, LONG)
        assert await letters.remove_old(week, 2) == 0
        assert await letters.give_back(some_letter(3).letter_id, "a", "later")
        assert await letters.remove_old(week, 2) == 1
        assert await letters.remove_old(week, 2) == 0

        left = await letters.list(ALL, None, 10)
        assert [letter.letter_id for letter in left] == [some_letter(4).letter_id, some_letter(5).letter_id]


async def _claims(letters: DeadLetters, wanted: LetterFilter) -> AsyncIterator[DeadLetter]:
    """Claim the wanted letters one after the other, each under a claim of its own."""
    after: LetterPosition | None = None
    while letter := await letters.claim(str(uuid.uuid4()), wanted, after, LONG):
        yield letter
        after = LetterPosition(letter.failed_at, letter.letter_id)
