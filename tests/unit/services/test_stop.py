"""A failure during the stop: it ends no service's run in peace, and work that is cut off is named."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import Signals
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from patterns import Channel, Context, WaitGroup, receive, select
from runtime.background import report, run_reporting
from runtime.clean_up import Cleaner
from runtime.mongo import MongoDatabase
from runtime.mongo_settings import MongoSettings
from runtime.process import Application, Process
from runtime.settings import AuthSettings, KafkaSettings, PostgresSettings
from services.campaign_api import app as campaign_api
from services.campaign_api.settings import CampaignApiSettings
from services.consent_consumer import app as consent_consumer
from services.consent_consumer.salesforce_settings import SalesforceSettings
from services.consent_consumer.settings import ConsentConsumerSettings
from services.consent_consumer.watch import Watch
from services.coupon_api import app as coupon_api
from services.coupon_api.settings import CouponApiSettings
from services.coupon_consumer import app as coupon_consumer
from services.coupon_consumer.settings import CouponConsumerSettings
from services.reward_store import app as reward_store
from services.reward_store.settings import CouponApiSettings as CouponApiClientSettings
from services.reward_store.settings import RelaySettings, RewardStoreSettings

BROKEN = LookupError("broken during the stop")
POSTGRES = PostgresSettings(database="x", user="x")
MONGO = MongoSettings(database="x")
KAFKA = KafkaSettings(bootstrap="127.0.0.1:1")


class Stand:
    """Stands in for whatever is only waited for and closed: a pool, a topic, a producer, a consumer."""

    async def wait_for_connection(self, ctx: Context) -> None:
        """Be there at once."""

    async def wait_for_topic(self, ctx: Context) -> None:
        """Be there at once."""

    async def create_indexes(self, _: object) -> None:
        """Have them."""

    async def check(self) -> None:
        """Be well."""

    def close(self) -> None:
        """Begin nothing any more."""

    async def aclose(self, *_: object) -> None:
        """Close."""


class Server:
    """Stands in for the HTTP server; `failure` is what it reports while it drains."""

    failure: BaseException | None = None

    def __init__(self, *_: object) -> None:
        self.address = ("127.0.0.1", 0)

    def statistics(self) -> None:
        """Have none."""

    def start(self, server_errors: Channel[BaseException]) -> None:
        """Keep the channel."""
        self._server_errors = server_errors

    async def drain(self) -> None:
        """Fail in the background, as a server's own task does."""
        if self.failure is not None:
            report(self._server_errors, self.failure)

    def close(self) -> None:
        """Close."""


class FailingServer(Server):
    """Fails while it drains."""

    failure = BROKEN


@asynccontextmanager
async def open_stand(*_: object, **__: object) -> AsyncIterator[Stand]:
    """Open a stand-in."""
    yield Stand()


async def fail_at_the_stop(ctx: Context) -> None:
    """Work until the stop, and then not find the way out."""
    await select(receive(ctx.done))
    raise BROKEN


async def work_until_the_stop(_: object, ctx: Context) -> None:
    """Work, as a part's method, until the stop."""
    await select(receive(ctx.done))


async def overstay(ctx: Context) -> None:
    """Take no notice of the stop."""
    del ctx
    await asyncio.sleep(3600)


def secret(directory: Path) -> Path:
    """Return a file with a secret."""
    file = directory / "secret"
    file.write_text("0123456789abcdef" * 2)
    return file


async def stop(application: Application, process: Process) -> None:
    """Run an application that is ready at once, and tell it to stop."""
    running = asyncio.create_task(application.run(process))
    while (await process.health.report()).not_ready and not running.done():  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    process.notify(Signals.SIGTERM)
    await running


async def test_coupon_api_whose_server_fails_while_it_drains_ends_with_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error that nobody selects any more is raised after the stop, and completed is not said."""
    monkeypatch.setattr(coupon_api, "open_pool", open_stand)
    monkeypatch.setattr(coupon_api, "expose_pool", lambda _: None)
    monkeypatch.setattr(coupon_api, "registry", CollectorRegistry())
    monkeypatch.setattr(coupon_api, "HttpServer", FailingServer)
    settings = CouponApiSettings(postgres=POSTGRES, auth=AuthSettings(secret_file=secret(tmp_path)))
    with capture_logs() as lines, pytest.raises(LookupError) as raised:
        await stop(coupon_api.Application(settings), Process(settings))
    assert raised.value is BROKEN
    assert "Application shutdown completed" not in [line["event"] for line in lines]


def reward_store_application(
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    **background: Any,  # noqa: ANN401 - coroutine functions
) -> tuple[reward_store.Application, RewardStoreSettings]:
    """Return reward_store around stand-ins, with this for its background work."""
    for name in ("open_pool", "open_producer", "open_coupon_api"):
        monkeypatch.setattr(reward_store, name, open_stand)
    parts = reward_store._Parts(cast("Any", Stand()), cast("Any", Stand()), cast("Any", Server()), background)
    monkeypatch.setattr(reward_store.Application, "_build", lambda *_: parts)
    file = secret(directory)
    settings = RewardStoreSettings(
        postgres=POSTGRES,
        kafka=KAFKA,
        auth=AuthSettings(secret_file=file),
        coupon_api=CouponApiClientSettings(urls=("http://127.0.0.1:1",), token_file=file),
        relay=RelaySettings(finish_seconds=0.01),
    )
    return reward_store.Application(settings), settings


async def test_reward_store_whose_relay_fails_in_its_last_batch_ends_with_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The background work's last error is the run's."""
    application, settings = reward_store_application(monkeypatch, tmp_path, relay=fail_at_the_stop)
    with pytest.raises(LookupError) as raised:
        await stop(application, Process(settings))
    assert raised.value is BROKEN


async def test_reward_store_names_the_work_that_it_cuts_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work that takes longer than its time is cancelled, by name in a warning, and the stop goes on."""
    application, settings = reward_store_application(monkeypatch, tmp_path, finisher=overstay, relay=overstay)
    with capture_logs() as lines:
        await stop(application, Process(settings))
    cut_off = [line for line in lines if line["event"] == "Background work cut off"]
    assert [(line["log_level"], line["work"]) for line in cut_off] == [("warning", ["finisher", "relay"])]
    assert lines[-1]["event"] == "Application shutdown completed"


async def test_coupon_consumer_whose_last_batch_fails_ends_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that cannot be stored during the stop is told apart from a clean exit."""
    monkeypatch.setattr(coupon_consumer, "open_pool", open_stand)
    monkeypatch.setattr(coupon_consumer, "KafkaTopic", lambda *_: Stand())
    nobody = cast("Any", None)
    parts = coupon_consumer.Parts(cast("Any", Stand()), nobody, nobody, nobody)
    monkeypatch.setattr(coupon_consumer.Application, "_build", lambda *_: parts)

    def start(_: object, ctx: Context, __: object, consumer_errors: Channel[BaseException]) -> WaitGroup:
        background = WaitGroup()
        background.go(run_reporting, consumer_errors, fail_at_the_stop, ctx)
        return background

    monkeypatch.setattr(coupon_consumer.Application, "_start", start)
    settings = CouponConsumerSettings(postgres=POSTGRES, kafka=KAFKA)
    with pytest.raises(LookupError) as raised:
        await stop(coupon_consumer.Application(settings), Process(settings))
    assert raised.value is BROKEN


async def test_campaign_api_whose_server_fails_while_it_drains_ends_with_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As of coupon_api."""
    for name in ("wait_for_connection", "create_indexes", "check"):
        monkeypatch.setattr(MongoDatabase, name, getattr(Stand, name))
    monkeypatch.setattr(campaign_api, "expose_mongo", lambda _: None)
    monkeypatch.setattr(campaign_api, "registry", CollectorRegistry())
    monkeypatch.setattr(campaign_api, "HttpServer", FailingServer)
    settings = CampaignApiSettings(mongo=MONGO, auth=AuthSettings(secret_file=secret(tmp_path)))
    with capture_logs() as lines, pytest.raises(LookupError) as raised:
        await stop(campaign_api.Application(settings), Process(settings))
    assert raised.value is BROKEN
    assert "Application shutdown completed" not in [line["event"] for line in lines]


async def test_consent_consumer_whose_last_save_fails_ends_with_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A position that cannot be saved during the stop is told apart from a clean exit."""
    for name in ("open_mongo", "open_salesforce"):
        monkeypatch.setattr(consent_consumer, name, open_stand)
    monkeypatch.setattr(consent_consumer, "expose_mongo", lambda _: None)
    monkeypatch.setattr(consent_consumer, "registry", CollectorRegistry())
    monkeypatch.setattr(consent_consumer.Application, "_consume", lambda _, ctx, *__: fail_at_the_stop(ctx))
    for part in (Watch, Cleaner):
        monkeypatch.setattr(part, "run", work_until_the_stop)
    salesforce = SalesforceSettings(url="https://x.example", client_id="x", client_secret_file=secret(tmp_path))
    settings = ConsentConsumerSettings(mongo=MONGO, salesforce=salesforce, start="now")
    with capture_logs() as lines, pytest.raises(LookupError) as raised:
        await stop(consent_consumer.Application(settings), Process(settings))
    assert raised.value is BROKEN
    assert "Application shutdown completed" not in [line["event"] for line in lines]
