"""Members' traffic on a platform that others run, with an audit when it is told to stop.

The first start seeds the empty databases; later ones continue the journal, so that the audit covers all runs. SIGTERM
ends the traffic, the backlog drains, and the audit has the last word: `audit ok: ...` and status 0, or
`audit FAILED: ...` and status 1. A second signal ends it at once, without an audit, with status 1.
"""

import asyncio
import secrets
import sys
from pathlib import Path
from random import Random
from signal import Signals

import asyncpg

from patterns import Context, ContextError, ErrorGroup, Shutdown, receive, select
from runtime.admin import AdminServer
from runtime.errors import SettingsError
from runtime.health import Health
from runtime.metrics import render_metrics
from runtime.settings import load_settings, read_secret
from runtime.signals import STOP_SIGNALS, SignalInbox
from sandbox.audit import Verdict, audit
from sandbox.crowd import Crowd, served
from sandbox.holdings import read_platform
from sandbox.journal import ATTEMPTED, Journal, JournalBusyError, Record, Seed, read_journal
from sandbox.members.roster import Roster
from sandbox.members.settings import MembersSettings
from sandbox.observation import open_observer
from sandbox.salesforce import SalesforceControl
from sandbox.seed import make_seed, plant
from sandbox.world import MongoSide

_MEMBERS = 200
_POINTS = 50_000
_TELL_SECONDS = 10
_ANSWER_SECONDS = 10.0
_POLL_SECONDS = 0.5
_TIMEOUT_SECONDS = 10.0
_EXIT_SETTINGS = 78
_UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)


class MembersError(RuntimeError):
    """The members cannot begin or go on; the message is the one sentence that says why."""


class NoAnswerError(RuntimeError):
    """No request has had an answer for a while."""


class Members:
    """One run of the members' traffic."""

    def __init__(self, settings: MembersSettings, health: Health) -> None:
        postgres, mongo, salesforce = settings.postgres, settings.mongo, settings.salesforce
        self._settings = settings
        self._health = health
        self._roster = Roster(
            settings.addresses(),
            rewards_url=postgres.url(postgres.rewards_database),
            coupons_url=postgres.url(postgres.coupons_database),
            mongo_side=MongoSide(
                mongo.auditor_url(),
                mongo.writer_url(),
                SalesforceControl(salesforce.url, read_secret(None, salesforce.control_secret_file)),
                mongo.campaigns_database,
                mongo.consents_database,
            ),
            token_secret=read_secret(None, settings.token_secret_file) or "",
        )
        self._wrong = "they were not asked yet"
        self._answered_at = 0.0
        self._verdict: Verdict | None = None

    async def run(self, shutdown: Shutdown) -> int:
        """Send requests until the first signal, let the backlog drain, audit, and return the exit status.

        Raises:
            MembersError: the members cannot begin, or the journal cannot be written.
        """
        startup = shutdown.ctx.with_timeout(self._settings.startup_seconds)
        try:
            record = await startup.run(self._begin())
            await startup.run(self._wait_for_services())
        except ContextError:
            if shutdown.ctx.is_done:
                _say("stopped before the traffic began")
                return 0
            seconds = self._settings.startup_seconds
            raise MembersError(f"the platform does not answer within {seconds:g} s: {self._wrong}") from None
        try:
            with Journal(self._settings.journal, continued=record) as journal:
                return await self._live(shutdown, journal, record)
        finally:
            await self._roster.aclose()

    async def _begin(self) -> Record:
        """Find out whether this is the first run, seed the databases if it is, and return what is written down."""
        directory = self._settings.journal
        members = await self._count_members()
        record = await asyncio.to_thread(_read, directory)
        if record is None and members:
            raise MembersError(
                f"the databases have {members} members but the journal in {directory} is gone, so nothing can be "
                "audited: `docker compose down --volumes` begins anew"
            )
        if record is not None and record.attempts and not members:
            raise MembersError(
                f"the journal in {directory} tells of {len(record.attempts)} requests but the databases are empty: "
                "`docker compose down --volumes` begins anew"
            )
        if record is None:
            record = _write_seed(directory, make_seed(_MEMBERS, _POINTS))
        if not members:
            await plant(record.seed, self._roster.rewards_url)
        return record

    async def _count_members(self) -> int:
        """Count them as soon as the database answers."""
        while True:
            try:
                return await _count_members(self._roster.rewards_url)
            except _UNREACHABLE as error:
                self._wrong = f"PostgreSQL: {type(error).__name__}: {error}".rstrip(": ")
            await asyncio.sleep(_POLL_SECONDS)

    async def _wait_for_services(self) -> None:
        while True:
            await self._roster.look()
            ready = {one.service for one in self._roster.instances if await one.is_ready()}
            missing = [service.value for service in served(self._roster) if service not in ready]
            if not missing:
                return
            self._wrong = f"no instance of {' and '.join(missing)} is ready"
            await asyncio.sleep(_POLL_SECONDS)

    async def _live(self, shutdown: Shutdown, journal: Journal, record: Record) -> int:
        settings = self._settings
        random_seed = secrets.randbits(32)
        crowd = Crowd(
            self._roster,
            journal,
            record.seed,
            rate=settings.rate,
            random=Random(random_seed),  # noqa: S311 - a load, no secret
            requests_max=max(0, settings.requests_max - len(record.attempts)),
        )
        _say(f"traffic seed {random_seed}, {settings.rate:g} requests a second on average")
        if record.attempts:
            _say(f"the journal is continued: {len(record.attempts)} requests of earlier runs")
        has_ended = asyncio.Event()
        async with ErrorGroup() as group:
            await group.go(self._roster.watch)
            await group.go(self._tell, crowd, has_ended)
            await group.go(self._send, crowd, shutdown.ctx, has_ended)
            await select(receive(shutdown.ctx.done))
            self._health.set_draining()
            result = await shutdown.run(
                ("the last answers arrive", has_ended.wait),
                ("the backlog drains", lambda: self._drain(crowd)),
                ("the audit", self._audit),
            )
            group.cancel()
        for phase in result.phases:
            if phase.outcome == "failed":
                raise MembersError(f"{phase.name}: {type(phase.error).__name__}: {phase.error}") from phase.error
        if self._verdict is None:
            _say(f"stopped at once, without an audit: {'; '.join(result.left_over)}")
            return 1
        for line in self._verdict.lines():
            _say(line)
        return 0 if self._verdict.is_ok else 1

    async def _send(self, crowd: Crowd, ctx: Context, has_ended: asyncio.Event) -> None:
        try:
            await crowd.run(ctx)
        finally:
            has_ended.set()
        if not ctx.is_done:
            most = self._settings.requests_max
            _say(
                f"the traffic has ended: {most} requests are written down, as many as are allowed; waiting for SIGTERM"
            )

    async def _tell(self, crowd: Crowd, has_ended: asyncio.Event) -> None:
        """Print a line every ten seconds, and keep readiness up to date."""
        loop = asyncio.get_running_loop()
        self._answered_at = loop.time()
        silence_seconds = max(_ANSWER_SECONDS, 10 / self._settings.rate)
        answered = requests = seconds = 0

        async def check() -> None:
            if not has_ended.is_set() and loop.time() - self._answered_at > silence_seconds:
                raise NoAnswerError

        self._health.add_check("answers", check)
        self._health.set_ready()
        while True:
            await asyncio.sleep(1)
            seconds += 1
            seen = crowd.traffic.statistics()
            good = sum(count for kind, count in seen.answers.items() if kind != "5xx")
            if good > answered:
                answered, self._answered_at = good, loop.time()
            if seconds % _TELL_SECONDS == 0 and seen.requests > requests:
                rate, requests = (seen.requests - requests) / _TELL_SECONDS, seen.requests
                answers = ", ".join(f"{kind} {count}" for kind, count in sorted(seen.answers.items()))
                p99 = "unknown" if seen.p99_seconds is None else f"{seen.p99_seconds * 1000:.0f} ms"
                _say(
                    f"requests {requests} ({rate:.0f}/s; {answers or 'no answer yet'}; {seen.failed} failed)  "
                    f"latency p99 {p99}  redemptions {seen.redemptions}"
                )

    async def _drain(self, crowd: Crowd) -> None:
        """Wait until everything that was promised has arrived; what has not by then is for the audit to tell."""
        _say("traffic has ended; waiting for the backlog to drain")
        async with open_observer(self._roster, crowd) as observer:
            try:
                async with asyncio.timeout(self._settings.drain_seconds):
                    await observer.wait_drained()
            except TimeoutError:
                _say(f"the backlog has not drained within {self._settings.drain_seconds:g} s")

    async def _audit(self) -> None:
        record = read_journal(self._settings.journal)
        holdings = await read_platform(self._roster)
        self._verdict = audit(record, holdings, failures_allowed=self._settings.failures_allowed)


def run(inbox: SignalInbox) -> int:
    """Run the members as the environment says and return the exit status: 0, 1, or 78 for bad settings."""
    try:
        settings = load_settings(MembersSettings)
    except SettingsError as error:
        sys.stderr.write(f"members: {error}\n")
        return _EXIT_SETTINGS
    try:
        return asyncio.run(_run(settings, inbox))
    except (MembersError, JournalBusyError, OSError, ValueError) as error:
        _say(f"the members ended without an audit: {error}")
        return 1
    finally:
        inbox.close()


async def _run(settings: MembersSettings, inbox: SignalInbox) -> int:
    loop = asyncio.get_running_loop()
    shutdown = Shutdown(settings.grace_seconds)

    def take(number: Signals) -> None:  # in a signal handler: between any two instructions of this thread
        if number in STOP_SIGNALS:
            loop.call_soon_threadsafe(shutdown.notify, number)

    health = Health()
    admin = AdminServer(settings.admin, health, render_metrics)
    admin.start(loop)
    inbox.attach(take)
    try:
        return await Members(settings, health).run(shutdown)
    finally:
        inbox.detach()
        admin.close()


async def _count_members(url: str) -> int:
    connection = await asyncpg.connect(url, timeout=_TIMEOUT_SECONDS, command_timeout=_TIMEOUT_SECONDS)
    try:
        count: int = await connection.fetchval("select count(*) from members")
    finally:
        await connection.close()
    return count


def _read(directory: Path) -> Record | None:
    """Return what is written down, or None where nothing is."""
    attempted = directory / ATTEMPTED
    return read_journal(directory) if attempted.exists() and attempted.stat().st_size else None


def _write_seed(directory: Path, seed: Seed) -> Record:
    """Write the seed down before it is planted: a start that is cut off between the two is completed by the next."""
    with Journal(directory) as journal:
        journal.seeded(seed)
    return read_journal(directory)


def _say(line: str) -> None:
    print(line, flush=True)
