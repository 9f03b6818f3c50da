"""The whole flow on one machine: servers, services, traffic, a rolling restart in the middle, and an audit at the end.

    python -m sandbox.demo [--seconds N] [--rate N]

Ctrl-C, SIGTERM or the end of the seconds: the traffic stops, the backlog drains, everything stops in order, and the
audit has the last word: `audit ok: ...` and status 0, or `audit FAILED: ...` and status 1. A second Ctrl-C ends it at
once with status 130 and no audit. However it ends, no process stays behind.
"""

import argparse
import asyncio
import dataclasses
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from patterns import Context, ContextError, ErrorGroup, Shutdown, ShutdownResult, receive, select
from sandbox.audit import Verdict, audit
from sandbox.balancer import Balancer
from sandbox.holdings import read_holdings
from sandbox.instance import Instance, Service
from sandbox.journal import Journal, Seed, read_journal
from sandbox.observation import Observer, open_observer
from sandbox.place import PLACE, DemoRunningError, ForeignPlaceError, hold_place
from sandbox.screen import Screen, open_screen
from sandbox.seed import make_seed, plant
from sandbox.servers import ServerError
from sandbox.system import System, open_system
from sandbox.traffic import Traffic

_MEMBERS = 200
_POINTS = 4_000
_REQUEST_SECONDS = 15.0
_UNLIMITED_RESTART_SECONDS = 10.0
_DRAIN_SECONDS = 60.0
_STOP_SECONDS = 180.0
_POLL_SECONDS = 0.1
_INTERRUPTED = 130


class Demo:
    """One run of the demo on a system whose services are up."""

    def __init__(self, system: System, journal: Journal, seed: Seed, screen: Screen, *, rate: float) -> None:
        self._system = system
        self._journal = journal
        self._screen = screen
        self._balancers = {
            service: Balancer(self._instances_of(service), system.client, timeout_seconds=_REQUEST_SECONDS)
            for service in (Service.REWARD_STORE, Service.COUPON_API)
        }
        random_seed = secrets.randbits(32)
        screen.say(f"traffic seed {random_seed}, {rate:g} requests a second on average")
        self._traffic = Traffic(
            self._balancers,
            journal,
            seed,
            system.token,
            rate=rate,
            random=Random(random_seed),  # noqa: S311 - a load, no secret
        )

    async def run(self, shutdown: Shutdown, seconds: float | None) -> ShutdownResult:
        """Send traffic until told to stop, then stop everything but the databases, in order."""
        async with self._observed() as observer, ErrorGroup() as watchers:
            for balancer in self._balancers.values():
                await watchers.go(balancer.watch)
            await watchers.go(self._show, observer)
            stopping = shutdown.ctx.with_cancel()
            async with ErrorGroup() as work:
                await work.go(self._traffic.run, stopping)
                await work.go(self._direct, stopping, seconds)
            result = await shutdown.run(
                ("the backlog drains", lambda: self._drain(observer)),
                ("the services stop", self._system.stop_services),
            )
            self._screen.show(await observer.look())
            watchers.cancel()
        return result

    async def verdict(self) -> Verdict:
        """Audit the books; an instance that did not end with status 0 counts as a difference."""
        record = read_journal(self._journal.directory)
        verdict = audit(record, await read_holdings(self._system.rewards_url, self._system.coupons_url))
        ends = [
            f"{stopped.name} ended with status {stopped.status}" for stopped in self._system.ended if stopped.status
        ]
        return dataclasses.replace(verdict, differences=(*verdict.differences, *ends))

    @asynccontextmanager
    async def _observed(self) -> AsyncIterator[Observer]:
        observer = await open_observer(self._system, self._traffic)
        try:
            yield observer
        finally:
            await observer.aclose()

    async def _show(self, observer: Observer) -> None:
        while True:
            self._screen.show(await observer.look())
            await asyncio.sleep(self._screen.period_seconds)

    async def _direct(self, stopping: Context, seconds: float | None) -> None:
        """Let the traffic run for its time, replace two instances in the middle of it, and then end it."""
        loop = asyncio.get_running_loop()
        ends_at = None if seconds is None else loop.time() + seconds
        await _pause(stopping, _UNLIMITED_RESTART_SECONDS if seconds is None else seconds / 4)
        for service in (Service.REWARD_STORE, Service.COUPON_CONSUMER):
            if not stopping.is_done:
                await self._replace_one(stopping, service)
        await _pause(stopping, None if ends_at is None else ends_at - loop.time())
        stopping.cancel()

    async def _replace_one(self, stopping: Context, service: Service) -> None:
        failed_before = self._traffic.statistics().failed
        old = self._instances_of(service)()[0]
        self._screen.say(f"rolling restart of {service}: starting a second instance")
        try:
            new = await stopping.run(self._system.start(service))
            self._screen.say(f"rolling restart of {service}: {new.name} is ready, stopping {old.name}")
            ended = await self._system.stop(old)
        except ContextError:
            return
        failed = self._traffic.statistics().failed - failed_before
        self._screen.say(
            f"rolling restart of {service}: {ended.name} ended with status {ended.status}, {failed} requests failed"
        )

    async def _drain(self, observer: Observer) -> None:
        """Wait until everything that was promised has arrived; what has not by then is for the audit to tell."""
        self._screen.say("traffic has ended; waiting for the backlog to drain")
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not (await observer.look()).is_drained:  # noqa: ASYNC110 - databases set no event
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            self._screen.say(f"the backlog has not drained within {_DRAIN_SECONDS:g} s")

    def _instances_of(self, service: Service) -> Callable[[], list[Instance]]:
        return lambda: [instance for instance in self._system.instances if instance.service is service]


async def _pause(ctx: Context, seconds: float | None) -> None:
    """Wait for a time, or for ever, unless the context ends before."""
    if seconds is None or seconds > 0:
        await select(receive(ctx.done), timeout_seconds=seconds)


def links(system: System) -> Iterator[str]:
    """Yield the one list of links."""
    yield "try it:"
    for service in (Service.REWARD_STORE, Service.COUPON_API):
        yield f"  {service} API docs   {system.base_url(service)}/docs"
    for instance in system.instances:
        yield f"  {instance.name} metrics   {instance.admin_url}/metrics   ({instance.admin_url}/readyz)"
    yield f"  rewards   {system.postgres.shown_url(system.rewards_database)}"
    yield f"  coupons   {system.postgres.shown_url(system.coupons_database)}"
    yield f"  Kafka     {system.kafka.bootstrap}, topic {system.topic}"
    yield f"  logs      {system.directory}"
    yield f"  a token for m-1 (another: make token MEMBER=m-2): {system.token('m-1')}"
    url = f"{system.base_url(Service.REWARD_STORE)}/v1/members/m-1"
    yield f'  curl -H "Authorization: Bearer $(make -s token MEMBER=m-1)" {url}'


def _servers(system: System) -> Iterator[str]:
    """Yield what the servers are, and what they are not."""
    if system.postgres.is_embedded:
        yield "PostgreSQL is embedded (from a wheel), with fsync on."
    if system.kafka.is_embedded:
        yield "The broker is embedded: Tansu, which speaks Kafka's protocol and keeps everything in memory."
        yield "It is not Apache Kafka: what this demo shows holds for Tansu."


async def _demo(place: Path, seconds: float | None, rate: float) -> int:
    print("starting the servers", flush=True)
    seed = make_seed(_MEMBERS, _POINTS)
    async with open_system(place, fsync=True) as system:
        for line in _servers(system):
            print(line)
        await plant(seed, system.rewards_url)
        print("starting the services", flush=True)
        await asyncio.gather(*(system.start(service) for service in Service))
        for line in links(system):
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
                return _INTERRUPTED
            verdict = await demo.verdict()
    for line in verdict.lines():
        print(line)
    return 0 if verdict.is_ok else 1


def main() -> int:
    """Run the demo and return its exit status."""
    parser = argparse.ArgumentParser(description="The whole flow on this machine, audited at the end.")
    parser.add_argument("--seconds", type=float, help="how long the traffic lasts (default: until Ctrl-C)")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second on average (default: 40)")
    parser.add_argument("--directory", type=Path, default=PLACE, help="where logs, secrets and journal go")
    arguments = parser.parse_args()
    if arguments.rate <= 0 or (arguments.seconds is not None and arguments.seconds <= 0):
        parser.error("--seconds and --rate must be greater than 0")
    try:
        with hold_place(arguments.directory.absolute()) as place:
            return asyncio.run(_demo(place, arguments.seconds, arguments.rate))
    except (DemoRunningError, ForeignPlaceError, ServerError) as error:
        print(f"the demo ended without an audit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before it began", file=sys.stderr)
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
