"""The client against the Salesforce stand-in over real connections, under every fault that it can switch on."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.salesforce import Endpoint, Fault, FaultKind
from sandbox.salesforce import Salesforce as Sandbox
from sandbox.salesforce import open_salesforce as open_sandbox
from services.consent_consumer.errors import SalesforceDenied, SalesforceUnavailable
from services.consent_consumer.outcome import STORED, Outcome, Verdict
from services.consent_consumer.salesforce import Salesforce, open_salesforce
from services.consent_consumer.salesforce_settings import SalesforceSettings
from tests.support.eventually import eventually
from tests.support.salesforce import APP, DETAIL, MASTER, detail, master, open_client, sandbox_settings

CALLERS = 50
BEFORE_AND_AFTER = pytest.mark.parametrize("after_apply", [False, True])


@dataclass(frozen=True, slots=True)
class Scene:
    """A stand-in, and a client whose pauses are short enough for a test."""

    sandbox: Sandbox
    salesforce: Salesforce

    async def insist(self, object_type: str, records: Sequence[dict[str, object]]) -> list[Outcome]:
        """Ask until there is an answer, as a stream does; a pause is waited for."""
        async with asyncio.timeout(30):
            while True:
                try:
                    return await self.salesforce.upsert(object_type, records)
                except SalesforceUnavailable as error:
                    await asyncio.sleep(error.retry_after_seconds)

    async def rest(self) -> None:
        """Wait for the end of the pause."""
        await eventually(lambda: not self.salesforce.paused_seconds)

    def stored(self, object_type: str = MASTER) -> dict[str, object]:
        """Return the versions of the records that are stored, by external id."""
        records = self.sandbox.records(object_type)
        return {external_id: record.fields["Version__c"] for external_id, record in records.items()}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """What the client is told beside the address."""
    file = tmp_path / "secret"
    file.write_text(APP.client_secret)
    return {
        "client_id": APP.client_id,
        "client_secret_file": file,
        "connections_max": CALLERS,
        "backoff_first_seconds": 0.01,
        "backoff_most_seconds": 0.05,
        "denied_pause_seconds": 0.2,
        "connect_timeout_seconds": 5,
        "call_timeout_seconds": 20,
        "timeout_seconds": 25,
    }


@asynccontextmanager
async def open_scene(directory: Path, settings: dict[str, Any], **changes: Any) -> AsyncIterator[Scene]:  # noqa: ANN401 - settings
    """Open both, with nothing said yet."""
    async with open_sandbox(sandbox_settings(directory)) as sandbox:
        told = SalesforceSettings.model_validate(settings | {"url": sandbox.url} | changes)
        async with open_salesforce(told) as salesforce:
            yield Scene(sandbox, salesforce)


@pytest.fixture
async def scene(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[Scene]:
    """A client that waits as long as is needed."""
    async with open_scene(tmp_path, settings) as opened:
        yield opened


@pytest.fixture
async def impatient(tmp_path: Path, settings: dict[str, Any]) -> AsyncIterator[Scene]:
    """A client that waits half a second for an answer."""
    async with open_scene(tmp_path, settings, connect_timeout_seconds=0.5, call_timeout_seconds=0.5) as opened:
        yield opened


def applied(sandbox: Sandbox) -> list[tuple[str, bool]]:
    """Return what was applied, one for each time: the external id, and whether it was new."""
    return [(one.external_id, one.is_created) for one in sandbox.applied()]


async def test_records_are_stored_and_each_has_its_outcome(scene: Scene) -> None:
    """A stored one, one that breaks a rule, one that is older, a detail without its master: one call each object."""
    assert await scene.salesforce.upsert(MASTER, [master("a", 5), master("b", Status__c="perhaps")]) == [
        STORED,
        Outcome(Verdict.REFUSED, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "Status__c"),
    ]
    found = await scene.salesforce.upsert(MASTER, [master("a", 4, Status__c="withdrawn"), master("c", 1)])
    assert [outcome.verdict for outcome in found] == [Verdict.OLDER, Verdict.STORED]
    assert scene.sandbox.records(MASTER)["a"].fields["Status__c"] == "granted"
    found = await scene.salesforce.upsert(DETAIL, [detail("a", "a"), detail("b", "nobody")])
    assert [outcome.verdict for outcome in found] == [Verdict.STORED, Verdict.LATER]
    assert scene.sandbox.counts.upsert == {"200": 3}


async def test_a_full_call_is_served(scene: Scene) -> None:
    """Two hundred records are one call; a second one, their replay, makes no record more."""
    records = [master(f"id-{number}") for number in range(200)]
    for _ in range(2):
        assert await scene.salesforce.upsert(MASTER, records) == [STORED] * 200
    assert len(scene.stored()) == 200
    assert scene.sandbox.counts.upsert == {"200": 2}


SPOILT = [
    (FaultKind.RESET, "the connection was lost"),
    (FaultKind.HALF_BODY, "half an answer"),
    (FaultKind.WRONG_LENGTH, "no JSON|answered 500"),
    (FaultKind.HTML, "no JSON"),
    (FaultKind.JUNK, "no JSON"),
    (FaultKind.BAD_GATEWAY, "answered 502"),
    (FaultKind.ERROR, "answered 500"),
    (FaultKind.UNAVAILABLE, "answered 503"),
    (FaultKind.THROTTLED, "answered 429"),
    (FaultKind.LIMIT, "answered 403 REQUEST_LIMIT_EXCEEDED"),
]


@BEFORE_AND_AFTER
@pytest.mark.parametrize(("kind", "detail"), SPOILT)
async def test_a_call_whose_answer_is_spoilt_is_repeated_and_leaves_one_record(
    scene: Scene, kind: FaultKind, detail: str, after_apply: bool
) -> None:
    """Nobody is told that it was stored or refused; asked again, it is there once, whether it was applied or not."""
    scene.sandbox.faults.switch_on(Fault(kind=kind, after_apply=after_apply, calls=1))
    with pytest.raises(SalesforceUnavailable, match=detail) as caught:
        await scene.salesforce.upsert(MASTER, [master("a")])
    assert not isinstance(caught.value, SalesforceDenied)
    assert applied(scene.sandbox) == ([("a", True)] if after_apply else [])
    await scene.rest()
    assert await scene.salesforce.upsert(MASTER, [master("a")]) == [STORED]
    assert applied(scene.sandbox) == ([("a", True), ("a", False)] if after_apply else [("a", True)])


@BEFORE_AND_AFTER
async def test_a_call_that_hangs_ends_at_its_deadline_and_leaves_one_record(
    impatient: Scene, after_apply: bool
) -> None:
    """The same for no answer at all: a hang, and an answer that comes later than it is waited for."""
    for fault in (
        Fault(kind=FaultKind.HANG, after_apply=after_apply, calls=1),
        Fault(kind=FaultKind.SLOW, seconds=30, after_apply=after_apply, calls=1),
    ):
        impatient.sandbox.faults.switch_on(fault)
        with pytest.raises(SalesforceUnavailable, match=r"no answer within 0\.5 s"):
            await impatient.salesforce.upsert(MASTER, [master("a")])
        await impatient.rest()
    assert await impatient.insist(MASTER, [master("a")]) == [STORED]
    assert [created for _, created in applied(impatient.sandbox)].count(True) == 1
    assert impatient.stored() == {"a": 1}


async def test_gzip_is_understood_and_a_slow_answer_waited_for(scene: Scene) -> None:
    """Neither is a failure."""
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.3, calls=1))
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.GZIP, after_apply=True, calls=1))
    assert await scene.salesforce.upsert(MASTER, [master("a")]) == [STORED]
    assert scene.sandbox.counts.upsert == {"200": 1}
    assert not scene.salesforce.paused_seconds


async def test_fifty_calls_that_lose_their_token_get_one_new_one_and_are_all_stored(scene: Scene) -> None:
    """However many are refused with the old token: each of those is made once more, and one new token is given out."""
    await scene.salesforce.upsert(MASTER, [master("a")])
    scene.sandbox.tokens.revoke_all()
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.5, endpoint=Endpoint.TOKEN))
    calls = [scene.salesforce.upsert(MASTER, [master(f"id-{number}")]) for number in range(CALLERS)]
    assert await asyncio.gather(*calls) == [[STORED]] * CALLERS
    assert scene.sandbox.counts.tokens_issued == 2
    assert scene.sandbox.counts.upsert["200"] == 1 + CALLERS
    assert 1 <= scene.sandbox.counts.upsert["401"] <= CALLERS
    assert len(applied(scene.sandbox)) == 1 + CALLERS


async def test_a_token_that_expires_amid_the_calls_costs_nothing(scene: Scene) -> None:
    """One call lets all tokens expire, others come after it: one new token, and no failure is seen."""
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.EXPIRED, calls=1))
    assert await scene.insist(MASTER, [master("a")]) == [STORED]
    assert scene.sandbox.counts.tokens_issued == 2
    assert scene.sandbox.counts.upsert == {"401": 1, "200": 1}


async def test_tokens_that_expire_at_once_are_no_loop(scene: Scene) -> None:
    """Each try makes two calls and no more, and is followed by a pause."""
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.EXPIRED))
    for tries in range(1, 4):
        with pytest.raises(SalesforceUnavailable, match="refused a token it had just given"):
            await scene.salesforce.upsert(MASTER, [master("a")])
        assert scene.sandbox.counts.upsert == {"401": 2 * tries}
        assert scene.sandbox.counts.tokens_issued == 1 + tries
        await scene.rest()
    scene.sandbox.faults.clear()
    assert await scene.insist(MASTER, [master("a")]) == [STORED]


@pytest.mark.parametrize("kind", [kind for kind, _ in SPOILT if kind is not FaultKind.LIMIT])
async def test_an_endpoint_for_tokens_that_fails_makes_a_pause_and_no_dead_letter(
    scene: Scene, kind: FaultKind
) -> None:
    """No call is made meanwhile; when it works again the record is stored."""
    scene.sandbox.faults.switch_on(Fault(kind=kind, endpoint=Endpoint.TOKEN, calls=2))
    with pytest.raises(SalesforceUnavailable) as caught:
        await scene.salesforce.upsert(MASTER, [master("a")])
    assert not isinstance(caught.value, SalesforceDenied)
    assert not scene.sandbox.counts.upsert
    assert await scene.insist(MASTER, [master("a")]) == [STORED]
    assert len(scene.sandbox.faults) == 0


async def test_an_endpoint_for_tokens_that_hangs_ends_at_its_deadline(impatient: Scene) -> None:
    """It is given up, and asked again after the pause."""
    impatient.sandbox.faults.switch_on(Fault(kind=FaultKind.HANG, endpoint=Endpoint.TOKEN, calls=1))
    with pytest.raises(SalesforceUnavailable, match=r"no answer within 0\.5 s"):
        await impatient.salesforce.upsert(MASTER, [master("a")])
    assert await impatient.insist(MASTER, [master("a")]) == [STORED]


async def test_a_packed_and_late_token_is_a_token(scene: Scene) -> None:
    """Gzip and a delay are no failure there either."""
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.SLOW, seconds=0.3, endpoint=Endpoint.TOKEN, calls=1))
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.GZIP, endpoint=Endpoint.TOKEN, after_apply=True, calls=1))
    assert await scene.salesforce.upsert(MASTER, [master("a")]) == [STORED]
    assert scene.sandbox.counts.tokens_issued == 1


@pytest.mark.parametrize("status", [400, 401])
async def test_credentials_that_are_refused_stop_the_pushing(
    tmp_path: Path, settings: dict[str, Any], status: int
) -> None:
    """However many calls both streams want to make, one request for a token goes out in a pause, and no call."""
    async with open_scene(tmp_path, settings, denied_pause_seconds=60) as scene:
        scene.sandbox.faults.switch_on(Fault(kind=FaultKind.DENIED, status=status, endpoint=Endpoint.TOKEN))
        for object_type in (MASTER, DETAIL) * 10:
            with pytest.raises(SalesforceDenied, match=f"refused the credentials: {status}"):
                await scene.salesforce.upsert(object_type, [master("a")])
        assert scene.sandbox.counts.token == {str(status): 1}
        assert not scene.sandbox.counts.upsert


async def test_a_wrong_secret_is_denied_and_a_mended_file_is_noticed(scene: Scene, settings: dict[str, Any]) -> None:
    """The stand-in's own check refuses it, and the file's next content lets the client in without a restart."""
    settings["client_secret_file"].write_text("wrong")
    with pytest.raises(SalesforceDenied, match="400 invalid_client"):
        await scene.salesforce.upsert(MASTER, [master("a")])
    settings["client_secret_file"].write_text(APP.client_secret)
    assert await scene.insist(MASTER, [master("a")]) == [STORED]


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("7", 6, 7.7),
        ("86400", 299, 300),
        ("Sun, 29 Nov 2099 10:00:00 GMT", 299, 300),
        ("Sun, 29 Nov 1999 10:00:00 GMT", 0, 0.05),
        ("0", 0, 0.05),
        ("soon", 0, 0.05),
        ("-1", 0, 0.05),
        (None, 0, 0.05),
    ],
)
@pytest.mark.parametrize("kind", [FaultKind.UNAVAILABLE, FaultKind.THROTTLED])
async def test_a_retry_after_makes_one_pause_for_both_objects(
    scene: Scene, kind: FaultKind, text: str | None, least: float, most: float
) -> None:
    """It is honoured within the cap, nonsense counts as none, and until it is over no call is made for either."""
    scene.sandbox.faults.switch_on(Fault(kind=kind, retry_after=text))
    with pytest.raises(SalesforceUnavailable) as caught:
        await scene.salesforce.upsert(MASTER, [master("a")])
    assert least < caught.value.retry_after_seconds <= most
    if least > 0:
        for object_type in (MASTER, DETAIL):
            with pytest.raises(SalesforceUnavailable, match="paused"):
                await scene.salesforce.upsert(object_type, [master("b")])
        assert sum(scene.sandbox.counts.upsert.values()) == 1


async def test_a_limit_on_calls_lets_everything_through_in_the_end(scene: Scene) -> None:
    """Of forty calls one is let through while the limit holds; once it is lifted all others follow, each once."""
    scene.sandbox.rate.per_second = 0.001
    calls = [asyncio.create_task(scene.insist(MASTER, [master(f"id-{number}")])) for number in range(40)]
    await eventually(lambda: scene.sandbox.counts.upsert["403"] > 0)
    assert len(scene.stored()) <= 1
    scene.sandbox.rate.per_second = None
    assert await asyncio.gather(*calls) == [[STORED]] * 40
    assert len(applied(scene.sandbox)) == len(scene.stored()) == 40


async def test_each_record_of_a_mixed_answer_has_its_own_verdict(scene: Scene) -> None:
    """By its code; the others are stored, and none is sent twice by the client."""
    wanted = {
        "b": ("UNABLE_TO_LOCK_ROW", Verdict.LATER),
        "c": ("DUPLICATES_DETECTED", Verdict.REFUSED),
        "d": ("FIELD_CUSTOM_VALIDATION_EXCEPTION", Verdict.REFUSED),
        "e": ("SOMETHING_NEW", Verdict.UNKNOWN),
        "f": ("DUPLICATE_EXTERNAL_ID", Verdict.REFUSED),
        "g": ("STRING_TOO_LONG", Verdict.REFUSED),
    }
    for external_id, (code, _) in wanted.items():
        scene.sandbox.faults.switch_on(Fault(kind=FaultKind.RECORD, code=code, external_ids=(external_id,), calls=1))
    found = await scene.salesforce.upsert(MASTER, [master(external_id) for external_id in "abcdefgh"])
    verdicts = [(outcome.code, outcome.verdict) for outcome in found]
    assert verdicts == [("", Verdict.STORED), *wanted.values(), ("", Verdict.STORED)]
    assert [outcome.is_alarm for outcome in found].count(True) == 1
    assert applied(scene.sandbox) == [("a", True), ("h", True)]
    assert scene.sandbox.counts.upsert == {"200": 1}


async def test_an_external_id_that_is_not_unique_is_refused_with_an_alarm(scene: Scene) -> None:
    """300 for a call of one record is its outcome; for a call of more the record is looked for, in halves."""
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.NOT_UNIQUE, calls=1))
    [outcome] = await scene.salesforce.upsert(MASTER, [master("a")])
    assert (outcome.verdict, outcome.code, outcome.is_alarm) == (Verdict.REFUSED, "DUPLICATE_EXTERNAL_ID", True)
    scene.sandbox.faults.switch_on(Fault(kind=FaultKind.NOT_UNIQUE, calls=3))
    found = await scene.salesforce.upsert(MASTER, [master(external_id) for external_id in "abcd"])
    assert [outcome.verdict for outcome in found] == [Verdict.REFUSED, *[Verdict.STORED] * 3]
    assert scene.stored() == {"b": 1, "c": 1, "d": 1}


async def test_no_more_calls_are_under_way_than_there_may_be_connections(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Of five calls to a Salesforce that hangs two reach it, while another client's are served; a cancel ends all."""
    async with open_scene(tmp_path, settings, connections_max=2) as scene, open_client(scene.sandbox.url) as other:
        await scene.salesforce.upsert(MASTER, [master("a")])
        scene.sandbox.faults.switch_on(Fault(kind=FaultKind.HANG))
        calls = [asyncio.create_task(scene.salesforce.upsert(MASTER, [master(str(n))])) for n in range(5)]
        await eventually(lambda: scene.sandbox.counts.upsert["hang"] >= 2)
        for _ in range(5):
            await other.log_in()
        assert scene.sandbox.counts.upsert["hang"] == 2
        for call in calls:
            call.cancel()
        done, _ = await asyncio.wait(calls, timeout=10)
        assert [call.cancelled() for call in done] == [True] * 5


async def test_an_object_that_is_not_there_is_denied_and_keeps_no_other_back(scene: Scene) -> None:
    """404 is nobody's dead letter: somebody has to make the object, and masters go on meanwhile."""
    with pytest.raises(SalesforceDenied, match="answered 404 NOT_FOUND"):
        await scene.salesforce.upsert("Nothing__c", [master("a")])
    assert await scene.salesforce.upsert(MASTER, [master("a")]) == [STORED]


async def test_a_salesforce_that_is_not_there_is_waited_for(tmp_path: Path, settings: dict[str, Any]) -> None:
    """A refused connection is an outage like any other; the client goes on when somebody listens again."""
    async with open_sandbox(sandbox_settings(tmp_path)) as sandbox:
        url = sandbox.url
    async with open_salesforce(SalesforceSettings.model_validate(settings | {"url": url})) as salesforce:
        with pytest.raises(SalesforceUnavailable, match="no connection: ConnectionRefusedError"):
            await salesforce.upsert(MASTER, [master("a")])
        port = int(url.rpartition(":")[2])
        async with open_sandbox(sandbox_settings(tmp_path, port=port)) as sandbox:
            assert await Scene(sandbox, salesforce).insist(MASTER, [master("a")]) == [STORED]
        with pytest.raises(SalesforceUnavailable):
            await salesforce.upsert(MASTER, [master("b")])


@pytest.mark.parametrize("seed", range(3))
async def test_under_random_faults_every_record_ends_at_its_newest_version(impatient: Scene, seed: int) -> None:
    """Versions are sent out of order, by several callers, under faults of all kinds: the last one stands, once each."""
    rng = random.Random(seed)
    kinds = [kind for kind, _ in SPOILT] + [FaultKind.EXPIRED, FaultKind.HANG]
    for _ in range(30):
        kind = rng.choice(kinds)
        after_apply = kind is not FaultKind.EXPIRED and rng.random() < 0.5
        impatient.sandbox.faults.switch_on(Fault(kind=kind, after_apply=after_apply, calls=1))
    names = [f"id-{number}" for number in range(30)]
    work = [(name, at_version) for name in names for at_version in (1, 2, 3)]
    rng.shuffle(work)

    async def push(part: Sequence[tuple[str, int]]) -> None:
        for name, at_version in part:
            [outcome] = await impatient.insist(MASTER, [master(name, at_version)])
            assert outcome.verdict in (Verdict.STORED, Verdict.OLDER), (seed, outcome)

    async with asyncio.TaskGroup() as group:
        for place in range(4):
            group.create_task(push(work[place::4]))
    assert impatient.stored() == dict.fromkeys(names, 3), seed
    created = [external_id for external_id, is_new in applied(impatient.sandbox) if is_new]
    assert sorted(created) == sorted(names), seed
