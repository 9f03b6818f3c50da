"""All of it on one machine: servers, services, traffic, a file that is loaded, restarts and failures, and an audit.

    python -m sandbox.demo [--seconds N] [--rate N]

Ctrl-C, SIGTERM or the end of the seconds: the traffic stops, the backlog drains, everything stops in order, and the
audit has the last word: `audit ok: ...` and status 0, or `audit FAILED: ...` and status 1. A second Ctrl-C ends it at
once with status 130 and no audit. However it ends, no process stays behind.
"""

import argparse
import asyncio
import dataclasses
import json
import secrets
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

from patterns import Context, ContextError, ErrorGroup, Shutdown, ShutdownResult, receive, select
from sandbox.audit import SERVER_ERRORS, Verdict, audit
from sandbox.crowd import Crowd, served
from sandbox.delivery import Delivery
from sandbox.disturbance import Disturbance
from sandbox.etl import ENVIRONMENT
from sandbox.holdings import read_platform
from sandbox.instance import Instance, Service
from sandbox.journal import REJECTS, Journal, Seed, read_journal
from sandbox.links import GUEST, Links
from sandbox.observation import Observer, open_observer
from sandbox.place import PLACE, DemoRunningError, ForeignPlaceError, hold_place
from sandbox.roles import write_secret
from sandbox.screen import Screen, open_screen
from sandbox.seed import make_seed, plant
from sandbox.servers import ServerError
from sandbox.system import System, open_system
from sandbox.world import MongoSide, World

_MEMBERS = 200
_POINTS = 4_000
_UNLIMITED_RESTART_SECONDS = 10.0
_DRAIN_SECONDS = 60.0
_STOP_SECONDS = 180.0
INTERRUPTED: Final = 130

Run: TypeAlias = Callable[[Path, float | None, float], Coroutine[None, None, int]]


RESTARTED: Final = (
    Service.REWARD_STORE,
    Service.COUPON_CONSUMER,
    Service.CAMPAIGN_API,
    Service.CONSENT_CONSUMER,
)
"""The services of which every instance is replaced in the middle, one after the other."""


class Demo:
    """One run of the demo on a platform whose services are up.

    Args:
        world: the platform.
        journal: where the members write down what they do.
        seed: the members, and what they may redeem.
        screen: where it is shown.
        rate: requests a second on average.
        restarted: the services of which every instance is replaced in the middle.
    """

    def __init__(
        self,
        world: World,
        journal: Journal,
        seed: Seed,
        screen: Screen,
        *,
        rate: float,
        restarted: Sequence[Service] = RESTARTED,
    ) -> None:
        self._world = world
        self._journal = journal
        self._screen = screen
        self._restarted = restarted
        random_seed = secrets.randbits(32)
        screen.say(f"traffic seed {random_seed}, {rate:g} requests a second on average")
        random = Random(random_seed)  # noqa: S311 - a load, no secret
        self._crowd = Crowd(world, journal, seed, rate=rate, random=random)
        self._delivery = Delivery(world, journal, random_seed, screen.say)

    async def run(self, shutdown: Shutdown, seconds: float | None) -> ShutdownResult:
        """Send traffic until told to stop, then stop everything but the databases, in order."""
        async with open_observer(self._world, self._crowd) as observer, ErrorGroup() as watchers:
            await watchers.go(self._show, observer)
            stopping = shutdown.ctx.with_cancel()
            async with ErrorGroup() as work:
                await work.go(self._travel, stopping, shutdown.forced)
                await work.go(self._direct, stopping, shutdown.forced, seconds)
            result = await shutdown.run(
                ("the backlog drains", lambda: self._drain(observer)),
                ("the services stop", self._world.stop_services),
            )
            self._screen.show(await observer.look())
            watchers.cancel()
        return result

    async def verdict(self) -> Verdict:
        """Audit the books; an instance or a load that did not end as it should counts as a difference."""
        directory = self._journal.directory
        record = read_journal(directory)
        verdict = audit(record, await read_platform(self._world, list(record.files), directory / REJECTS))
        ends = [f"{stopped.name} ended with status {stopped.status}" for stopped in self._world.ended if stopped.status]
        differences = (*verdict.differences, *ends, *self._delivery.differences)
        return dataclasses.replace(verdict, differences=differences)

    async def _show(self, observer: Observer) -> None:
        while True:
            self._screen.show(await observer.look())
            await asyncio.sleep(self._screen.period_seconds)

    async def _travel(self, stopping: Context, forced: Context) -> None:
        """Let the members act until told to stop; a forced stop does not wait for their answers."""
        with suppress(ContextError):
            await forced.run(self._crowd.run(stopping))

    async def _direct(self, stopping: Context, forced: Context, seconds: float | None) -> None:
        """Let the traffic run for its time, load a file and disturb everything meanwhile, and then end it."""
        loop = asyncio.get_running_loop()
        ends_at = None if seconds is None else loop.time() + seconds
        async with ErrorGroup() as loading:
            await loading.go(self._deliver, stopping, forced)
            await _pause(stopping, _UNLIMITED_RESTART_SECONDS if seconds is None else seconds / 4)
            for service in self._restarted:
                for old in [one for one in self._world.instances if one.service is service]:
                    if not stopping.is_done:
                        await self._replace(forced, old)
            if (side := self._world.mongo_side) is not None and not stopping.is_done:
                await self._disturb(stopping, forced, side)
            await _pause(stopping, None if ends_at is None else ends_at - loop.time())
        self._screen.say("the traffic ends with the requests under way; Ctrl-C, or once more, ends everything at once")
        stopping.cancel()

    async def _deliver(self, stopping: Context, forced: Context) -> None:
        """Have a file loaded; what was begun ends in order, unless the stop is forced."""
        with suppress(ContextError):
            await forced.run(self._delivery.run(stopping))

    async def _disturb(self, stopping: Context, forced: Context, side: MongoSide) -> None:
        """Let Salesforce fail, then MongoDB step down; what was begun ends in order, unless the stop is forced."""
        disturbance = Disturbance(self._world, side, self._crowd.traffic, self._screen.say)
        with suppress(ContextError):
            await forced.run(disturbance.fail_salesforce(stopping))
            if not stopping.is_done:
                await forced.run(disturbance.step_mongo_down())

    async def _replace(self, forced: Context, old: Instance) -> None:
        """Replace an instance, to the end even if the demo is told to stop meanwhile, unless the stop is forced."""
        failed_before = self._crowd.traffic.statistics().failed
        self._screen.say(f"rolling restart of {old.service}: replacing {old.name}")
        try:
            new = await forced.run(self._world.replace(old))
        except ContextError:
            return
        failed = self._crowd.traffic.statistics().failed - failed_before
        self._screen.say(f"rolling restart of {old.service}: {new.name} is ready")
        self._screen.say(
            f"rolling restart of {old.service}: {old.name} ended with status {self._world.ended[-1].status}, "
            f"{failed} requests failed"
        )

    async def _drain(self, observer: Observer) -> None:
        """Wait until everything that was promised has arrived; what has not by then is for the audit to tell."""
        self._screen.say("traffic has ended; waiting for the backlog to drain")
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await observer.wait_drained()
        except TimeoutError:
            self._screen.say(f"the backlog has not drained within {_DRAIN_SECONDS:g} s")


async def _pause(ctx: Context, seconds: float | None) -> None:
    """Wait for a time, or for ever, unless the context ends before."""
    if seconds is None or seconds > 0:
        await select(receive(ctx.done), timeout_seconds=seconds)


def links(system: System) -> Links:
    """Return where everything of this machine's own platform is."""
    mongo = system.mongo_servers
    return Links(
        bases=[(service, system.base_url(service)) for service in served(system)],
        instances=[(instance.name, instance.admin_url) for instance in system.instances],
        rewards=system.postgres.shown_url(system.rewards_database),
        coupons=system.postgres.shown_url(system.coupons_database),
        kafka=f"{system.kafka.bootstrap}, topic {system.topic}",
        mongo=None if mongo is None else mongo.mongo.superuser_url,
        salesforce=None if mongo is None else mongo.salesforce_url,
        logs=str(system.directory),
        token=system.token(GUEST),
        token_command=f"make -s token MEMBER={GUEST}",
    )


def _servers(system: System) -> Iterator[str]:
    """Yield what the servers are, and what they are not."""
    if system.postgres.is_embedded:
        yield "PostgreSQL is embedded (from a wheel), with fsync on."
    if system.kafka.is_embedded:
        yield "The broker is embedded: Tansu, which speaks Kafka's protocol and keeps everything in memory."
        yield "It is not Apache Kafka: what this demo shows holds for Tansu."
    if system.mongo_servers is not None:
        yield "MongoDB is embedded (from a wheel): a replica set of one node. Salesforce is a stand-in of ours."


async def _demo(place: Path, seconds: float | None, rate: float) -> int:
    print("starting the servers", flush=True)
    seed = make_seed(_MEMBERS, _POINTS)
    async with open_system(place, fsync=True) as system:
        for line in _servers(system):
            print(line)
        await plant(seed, system.rewards_url)
        write_secret(place / ENVIRONMENT, json.dumps(system.load_environment()))
        print("starting the services", flush=True)
        await asyncio.gather(*(system.start(service) for service in Service))
        for line in links(system).lines():
            print(line)
        shutdown = Shutdown(_STOP_SECONDS)
        with Journal(place) as journal, shutdown.listen():
            journal.seeded(seed)
            with open_screen() as screen:
                demo = Demo(system, journal, seed, screen, rate=rate)
                result = await demo.run(shutdown, seconds)
            if result.left_over:
                await system.kill_services()
                print(f"stopped at once, without an audit: {'; '.join(result.left_over)}")
                return INTERRUPTED
            verdict = await demo.verdict()
    for line in verdict.lines():
        print(line)
    return 0 if verdict.is_ok else 1


def run_command(description: str, run: Run, *, rate: float, place: Path) -> int:
    """Read the command line of a demo, run it, and return its exit status; what a server raises ends it in one line.

    Args:
        description: what the demo is.
        run: gets the place, the seconds (None for no end) and the requests a second; returns the exit status.
        rate: requests a second unless told otherwise.
        place: where the journal goes, and whatever else is written, unless told otherwise.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, help="how long the traffic lasts (default: until Ctrl-C)")
    parser.add_argument("--rate", type=float, default=rate, help=f"requests a second on average (default: {rate:g})")
    parser.add_argument(
        "--directory", type=Path, default=place, help="where the journal goes, and what else is written"
    )
    arguments = parser.parse_args()
    if arguments.rate <= 0 or (arguments.seconds is not None and arguments.seconds <= 0):
        parser.error("--seconds and --rate must be greater than 0")
    try:
        with hold_place(arguments.directory.absolute()) as held:
            return asyncio.run(run(held, arguments.seconds, arguments.rate))
    except (DemoRunningError, ForeignPlaceError, ServerError) as error:
        print(f"the demo ended without an audit: {error}", file=sys.stderr)
        return 1
    except SERVER_ERRORS as error:
        print(f"the demo ended without an audit: {type(error).__name__}: {error}".removesuffix(": "), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped at once, without an audit", file=sys.stderr)
        return INTERRUPTED


def main() -> int:
    """Run the demo and return its exit status."""
    return run_command("The whole flow on this machine, audited at the end.", _demo, rate=40.0, place=PLACE)


if __name__ == "__main__":
    sys.exit(main())
