"""Members' traffic: an open loop, written down before it is sent, repeated only where that is right."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

import httpx
import orjson
import pytest

from patterns import background, bubble
from sandbox.balancer import RequestFailed
from sandbox.campaign_mix import OPERATOR
from sandbox.instance import Service
from sandbox.journal import Acknowledgement, Journal, Operation, read_journal
from sandbox.seed import make_seed
from sandbox.traffic import Traffic

SEED = make_seed(5, 1_000)
TOLD = {"redemption_id": "r-1", "coupon_code": "0" * 16}


class _Sender:
    """Give the answers in a list, one after another; the last one for ever. An Exception is raised, None hangs."""

    def __init__(self, *answers: httpx.Response | Exception | None) -> None:
        self._answers = list(answers)
        self.headers: list[Mapping[str, str]] = []

    async def send(
        self, _method: str, _path: str, *, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx.Response:
        """Answer."""
        del content
        self.headers.append(headers)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is None:
            await asyncio.sleep(3_600)
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        return answer


def _traffic(journal: Journal, sender: _Sender, *, rate: float = 100.0, in_flight_max: int = 500) -> Traffic:
    journal.seeded(SEED)
    senders = dict.fromkeys((Service.REWARD_STORE, Service.COUPON_API, Service.CAMPAIGN_API), sender)
    return Traffic(
        senders, journal, SEED, lambda member_id: member_id, rate=rate, random=Random(3), in_flight_max=in_flight_max
    )


def _created() -> httpx.Response:
    return httpx.Response(201, content=orjson.dumps(TOLD))


def test_arrivals_do_not_wait_for_answers(tmp_path: Path) -> None:
    """With nobody answering, as many requests are sent in ten seconds as the rate says."""

    async def scenario() -> int:
        with Journal(tmp_path) as journal:
            traffic = _traffic(journal, _Sender(None), rate=50, in_flight_max=10_000)
            with background().with_cancel() as ctx:
                running = asyncio.create_task(traffic.run(ctx))
                await asyncio.sleep(10)
                sent = traffic.statistics().in_flight
                running.cancel()
                await asyncio.wait([running])
        return sent

    assert abs(bubble(scenario) - 500) < 100
    assert read_journal(tmp_path).acknowledgements == {}


def test_arrivals_above_the_bound_are_dropped_and_counted(tmp_path: Path) -> None:
    """With as many requests under way as allowed, further arrivals are not sent, and the count says so."""

    async def scenario() -> tuple[int, int]:
        with Journal(tmp_path) as journal:
            traffic = _traffic(journal, _Sender(None), rate=50, in_flight_max=7)
            with background().with_cancel() as ctx:
                running = asyncio.create_task(traffic.run(ctx))
                await asyncio.sleep(10)
                statistics = traffic.statistics()
                running.cancel()
                await asyncio.wait([running])
        return statistics.in_flight, statistics.dropped

    in_flight, dropped = bubble(scenario)
    assert in_flight == 7
    assert dropped > 100
    assert len(read_journal(tmp_path).attempts) == 7


def test_stop_waits_for_the_answers_under_way(tmp_path: Path) -> None:
    """When the context ends nothing new is sent, and what was sent gets its answer first."""

    async def scenario() -> None:
        class Slow(_Sender):
            async def send(
                self, _method: str, _path: str, *, headers: Mapping[str, str], content: bytes | None = None
            ) -> httpx.Response:
                del headers, content
                await asyncio.sleep(2)
                return httpx.Response(200, content=b"{}")

        with Journal(tmp_path) as journal:
            traffic = _traffic(journal, Slow(None))
            with background().with_timeout(1) as ctx:
                await traffic.run(ctx)

    bubble(scenario)
    record = read_journal(tmp_path)
    assert record.attempts
    assert record.attempts.keys() == record.acknowledgements.keys()


async def test_request_is_on_file_before_it_is_sent(tmp_path: Path) -> None:
    """At the moment of sending the attempt can be read back; at the moment of learning, so can the answer."""
    seen: list[int] = []

    class Watching(_Sender):
        async def send(
            self, _method: str, _path: str, *, headers: Mapping[str, str], content: bytes | None = None
        ) -> httpx.Response:
            del headers, content
            seen.append(len(read_journal(tmp_path).attempts))
            return _created()

    with Journal(tmp_path) as journal:
        traffic = _traffic(journal, Watching(None))
        await traffic.handle(traffic.members.redeem_reward())
        assert seen == [1]
        assert len(traffic.members.held) == 1
        assert read_journal(tmp_path).acknowledgements[1].body == TOLD


@pytest.mark.parametrize(
    "unknown",
    [
        RequestFailed("ReadError"),
        httpx.Response(503, content=b'{"code":"overloaded"}'),
        httpx.Response(409, content=b'{"code":"request-in-progress"}'),
    ],
    ids=["no answer", "503", "still running"],
)
def test_unknown_outcome_is_repeated_under_the_same_key(tmp_path: Path, unknown: httpx.Response | Exception) -> None:
    """A member repeats a redemption until they know, with the same key, and each repetition is written down as one."""
    sender = _Sender(unknown, unknown, _created())

    async def scenario() -> None:
        with Journal(tmp_path) as journal:
            traffic = _traffic(journal, sender)
            await traffic.handle(traffic.members.redeem_reward())
            statistics = traffic.statistics()
            assert (statistics.requests, statistics.repeated, statistics.failed) == (3, 2, 2)
            assert statistics.redemptions == 1

    bubble(scenario)
    assert len({headers["idempotency-key"] for headers in sender.headers}) == 1
    attempts = read_journal(tmp_path).attempts
    assert [attempt.repeats for attempt in attempts.values()] == [None, 1, 1]
    assert len({attempt.key for attempt in attempts.values()}) == 1


def test_repetitions_end_after_eight_tries(tmp_path: Path) -> None:
    """Nobody repeats for ever."""

    async def scenario() -> int:
        with Journal(tmp_path) as journal:
            traffic = _traffic(journal, _Sender(RequestFailed("ReadError")))
            await traffic.handle(traffic.members.redeem_reward())
            return traffic.statistics().requests

    assert bubble(scenario) == 8


@pytest.mark.parametrize("status", [200, 400, 404, 409, 422])
async def test_known_outcome_is_not_repeated(tmp_path: Path, status: int) -> None:
    """An answer that says what happened is final, whatever it says."""
    sender = _Sender(httpx.Response(status, content=b'{"code":"sold-out"}'))
    with Journal(tmp_path) as journal:
        traffic = _traffic(journal, sender)
        await traffic.handle(traffic.members.redeem_reward())
    assert len(sender.headers) == 1


async def test_reading_is_not_repeated(tmp_path: Path) -> None:
    """A request without an effect that failed stays failed."""
    sender = _Sender(RequestFailed("ReadError"))
    with Journal(tmp_path) as journal:
        traffic = _traffic(journal, sender)
        request = traffic.members.next_request()
        while request.operation is not Operation.SEE_POINTS:
            request = traffic.members.next_request()
        await traffic.handle(request)
    assert len(sender.headers) == 1
    assert read_journal(tmp_path).failures == {1: "ReadError"}


async def test_answer_out_of_order_counts_as_failed(tmp_path: Path) -> None:
    """A 409 for a reason that a redemption cannot have is a failure."""
    with Journal(tmp_path) as journal:
        traffic = _traffic(journal, _Sender(httpx.Response(409, content=b'{"code":"coupon-used"}')))
        await traffic.handle(traffic.members.redeem_reward())
        assert traffic.statistics().failed == 1


async def test_body_that_is_no_json_is_written_down_as_none(tmp_path: Path) -> None:
    """An answer without a readable body is acknowledged with its status alone."""
    with Journal(tmp_path) as journal:
        traffic = _traffic(journal, _Sender(httpx.Response(502, content=b"<html>")))
        await traffic.handle(replace(traffic.members.redeem_reward(), is_repeatable=False))
    assert read_journal(tmp_path).acknowledgements[1].outcome == "502"


async def test_request_carries_its_members_token(tmp_path: Path) -> None:
    """The token is the one of the member who asks."""
    sender = _Sender(_created())
    with Journal(tmp_path) as journal:
        traffic = _traffic(journal, sender)
        request = traffic.members.redeem_reward()
        await traffic.handle(request)
    assert sender.headers[0]["authorization"] == f"Bearer {request.member_id}"


def _campaign(traffic: Traffic, *, version: int = 1) -> None:
    """Let the operator be told of a campaign."""
    campaign = {"campaign_id": "cp-1", "version": version, "status": "draft"}
    traffic.members.campaigns.learn(traffic.members.campaigns.create(), Acknowledgement(0, 201, None, {}, 0), campaign)


async def test_change_of_a_campaign_names_its_version_to_the_service_and_to_the_journal(tmp_path: Path) -> None:
    """The entity tag goes with the request, the version and what is wanted into the journal, under the operator."""
    sender = _Sender(httpx.Response(200, content=b'{"version":2,"status":"draft"}'))
    with Journal(tmp_path) as journal:
        traffic = _traffic(journal, sender)
        _campaign(traffic)
        request = traffic.members.campaigns.change()
        assert request is not None
        await traffic.handle(request)
    assert sender.headers[0]["if-match"] == '"1"'
    assert sender.headers[0]["authorization"] == f"Bearer {OPERATOR}"
    attempt = read_journal(tmp_path).attempts[1]
    assert (attempt.version, attempt.wanted, attempt.member_id) == (1, request.wanted, OPERATOR)
    assert read_journal(tmp_path).acknowledgements[1].body == {"version": 2, "status": "draft"}


def test_repeated_deletion_may_find_nothing_and_a_first_one_may_not(tmp_path: Path) -> None:
    """A 404 is in order only for whoever asks a second time."""
    gone = httpx.Response(404, content=b'{"code":"campaign-not-found"}')

    async def failed(directory: Path, *answers: httpx.Response | Exception) -> int:
        with Journal(directory) as journal:
            traffic = _traffic(journal, _Sender(*answers))
            _campaign(traffic)
            request = traffic.members.campaigns.delete()
            assert request is not None
            await traffic.handle(request)
            return traffic.statistics().failed

    assert bubble(lambda: failed(tmp_path / "first", gone)) == 1
    assert bubble(lambda: failed(tmp_path / "repeated", RequestFailed("ReadError"), gone)) == 1  # the lost answer


async def test_answers_that_are_allowed_for_a_while_are_excused_and_written_down_as_in_order(tmp_path: Path) -> None:
    """Within the block a 503 of that service is no failure; before, after and of another service it is one."""
    away = httpx.Response(503, content=b'{"code":"dependency-unavailable"}')
    with Journal(tmp_path) as journal:
        traffic = _traffic(journal, _Sender(away))
        browse, reward = (
            traffic.members.campaigns.browse("m-1"),
            replace(traffic.members.redeem_reward(), is_repeatable=False),
        )
        await traffic.handle(browse)
        async with traffic.allowing(Service.CAMPAIGN_API, ["503 dependency-unavailable"]):
            await traffic.handle(browse)
            await traffic.handle(reward)
        await traffic.handle(browse)
        statistics = traffic.statistics()
    assert (statistics.failed, statistics.excused) == (3, 1)
    expected = [attempt.expected for attempt in read_journal(tmp_path).attempts.values()]
    assert ["503 dependency-unavailable" in one for one in expected] == [False, True, False, False]


def test_allowing_begins_when_every_earlier_request_has_its_answer(tmp_path: Path) -> None:
    """What happens in the block happens to no request that was written down without the allowance."""

    async def scenario() -> list[str]:
        class Slow(_Sender):
            async def send(
                self, _method: str, _path: str, *, headers: Mapping[str, str], content: bytes | None = None
            ) -> httpx.Response:
                del headers, content
                await asyncio.sleep(2)
                order.append("answered")
                return httpx.Response(200, content=b"{}")

        order: list[str] = []
        with Journal(tmp_path) as journal:
            traffic = _traffic(journal, Slow(None))
            earlier = asyncio.create_task(traffic.handle(traffic.members.campaigns.browse("m-1")))
            await asyncio.sleep(1)
            async with traffic.allowing(Service.CAMPAIGN_API, ["503"]):
                order.append("allowed")
            await earlier
        return order

    assert bubble(scenario) == ["answered", "allowed"]
