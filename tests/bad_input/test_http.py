"""Whatever a client sends: one answer, decided before any write, with nothing of the input in answer or log."""

import asyncio

import pytest

from tests.bad_input import http_bodies, http_headers, http_paths, http_tokens, http_transport
from tests.bad_input.http_row import CANARY, Call, Row
from tests.bad_input.http_world import TOKENS, Apis, differences, meaning

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = (*http_bodies.ROWS, *http_headers.ROWS, *http_paths.ROWS, *http_tokens.ROWS, *http_transport.ROWS)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_bad_input_gets_its_one_answer_and_changes_nothing(apis: Apis, row: Row) -> None:
    """The answer is the row's, twice the same, without a word of the input; the tables are as they were."""
    api = apis[row.api]
    request = row.encode(TOKENS)
    is_head = isinstance(row.request, Call) and row.request.method == "HEAD"
    before = await api.database.contents()
    answers = [await api.ask(request, is_head=is_head) for _ in range(2)]

    assert differences(row, answers[0]) == []
    assert meaning(answers[0]) == meaning(answers[1])
    for answer in answers:
        assert CANARY not in f"{answer.headers} {answer.body!r}".lower()
    assert await api.database.contents() == before


async def test_request_that_never_ends_is_answered_when_its_time_is_up(apis: Apis) -> None:
    """Half a header and half a body get 408, each time the same, and the application never sees them."""
    rows = [row for row in http_transport.UNFINISHED_ROWS for _ in range(2)]
    answers = await asyncio.gather(*(apis[row.api].ask(row.encode(TOKENS)) for row in rows))
    for row, answer in zip(rows, answers, strict=True):
        assert differences(row, answer) == [], row
        assert CANARY not in f"{answer.headers} {answer.body!r}".lower()
    for row, first, second in zip(rows[::2], answers[::2], answers[1::2], strict=True):
        assert meaning(first) == meaning(second), row
