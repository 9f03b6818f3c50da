"""The operator's commands: `positions`, `skip`, `dead-letters list|show|replay`; each reads the service's settings."""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Final, cast

from bson import json_util
from uuid_utils.compat import uuid7

from patterns import background
from runtime.command import EXIT_FAILED, EXIT_OK, count_of, say
from runtime.errors import DependencyUnavailable
from runtime.mongo import MongoDatabase, open_mongo
from services.consent_consumer.change_stream import CONSENT_DETAIL, CONSENT_MASTER, Change
from services.consent_consumer.dead_letters import (
    DeadLetter,
    DeadLetters,
    LetterFilter,
    LetterPosition,
    MongoDeadLetters,
)
from services.consent_consumer.errors import LeaseHeldError
from services.consent_consumer.outcome import Outcome, Verdict
from services.consent_consumer.salesforce import Salesforce, open_salesforce
from services.consent_consumer.settings import ConsentConsumerSettings
from services.consent_consumer.store import MongoConsentStore, Position
from services.consent_consumer.update import EVENT_TOO_LARGE, UPDATES

_STREAMS: Final = (CONSENT_MASTER, CONSENT_DETAIL)
_AUDIT_LINES: Final = 20

Command = Callable[[ConsentConsumerSettings, argparse.Namespace, MongoDatabase], Awaitable[int]]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; without a command the service runs."""
    parser = argparse.ArgumentParser(
        prog="python -m services.consent_consumer",
        description="Carry consents to Salesforce; without a command, until a signal.",
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands")

    shower = commands.add_parser("positions", help="where the streams stand, who works, and what operators decided")
    shower.set_defaults(command=show_positions)

    skipper = commands.add_parser("skip", help="leave out what a stream has missed: it begins anew with what comes now")
    skipper.add_argument("--stream", choices=_STREAMS, required=True)
    skipper.add_argument("--reason", type=_text, required=True, help="why; it stays in the audit")
    skipper.add_argument("--by", type=_text, required=True, help="who decided")
    skipper.set_defaults(command=skip)

    letters = commands.add_parser(
        "dead-letters", help="look at changes that Salesforce would not take, and replay them"
    )
    words = letters.add_subparsers(required=True)
    lister = words.add_parser("list", help="one line a letter, oldest first")
    lister.add_argument("--stream", choices=_STREAMS)
    lister.add_argument("--class", dest="error_class", help="only letters of this class of error")
    lister.add_argument("--limit", type=count_of, default=100)
    lister.set_defaults(command=list_dead_letters)
    whole = words.add_parser("show", help="all that is known of one letter")
    whole.add_argument("id")
    whole.set_defaults(command=show_dead_letter)
    replayer = words.add_parser("replay", help="send the changes of letters again, by today's rules")
    which = replayer.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", help="only this one")
    which.add_argument("--class", dest="error_class", help="only letters of this class of error")
    which.add_argument("--all", action="store_true")
    replayer.add_argument("--stream", choices=_STREAMS)
    replayer.add_argument("--limit", type=count_of, default=10_000)
    replayer.set_defaults(command=replay_dead_letters)
    return parser


def run_command(settings: ConsentConsumerSettings, arguments: argparse.Namespace) -> int:
    """Run the command that was parsed and return the exit status; raises what its servers raise."""
    return asyncio.run(_run(settings, arguments))


async def _run(settings: ConsentConsumerSettings, arguments: argparse.Namespace) -> int:
    name = f"{settings.service}-command"
    with background().with_timeout(settings.startup_seconds) as ctx:
        async with open_mongo(ctx, settings.mongo, application_name=name) as database:
            return await cast("Command", arguments.command)(settings, arguments, database)


async def show_positions(_: ConsentConsumerSettings, __: argparse.Namespace, database: MongoDatabase) -> int:
    """Print a line a stream, one about the lease, and the last decisions."""
    store = MongoConsentStore(database)
    for stream in _STREAMS:
        found = await store.find_position(stream)
        if found is None or found.position is None:
            say(f"{stream}: never began")
            continue
        time = datetime.fromtimestamp(found.position.cluster_time.time, UTC).isoformat()
        saved = "" if found.saved_at is None else f", saved {found.saved_at.isoformat()}"
        say(f"{stream}: behind the changes of {time}, fence {found.fence}{saved}")
    lease = await store.find_lease()
    if lease is None or not lease.is_held:
        say("no instance is at work")
    else:
        say(f"{lease.holder} is at work, fence {lease.fence}, until {lease.expires_at.isoformat()} at least")
    for line in await store.list_audit(_AUDIT_LINES):
        say(f"{line.at.isoformat()} {line.by} let {line.stream} skip: {line.reason}")
    return EXIT_OK


async def skip(_: ConsentConsumerSettings, arguments: argparse.Namespace, database: MongoDatabase) -> int:
    """Move a stream to now, and write the decision down; status 1 and no change while an instance is at work."""
    store = MongoConsentStore(database)
    position = Position(await store.cluster_time(), None)
    try:
        await store.skip(arguments.stream, position, by=arguments.by, reason=arguments.reason)
    except LeaseHeldError as error:
        say(str(error))
        return EXIT_FAILED
    say(f"{arguments.stream} begins with the changes from now on; what came before is left out")
    return EXIT_OK


async def list_dead_letters(_: ConsentConsumerSettings, arguments: argparse.Namespace, database: MongoDatabase) -> int:
    """Print one line a letter."""
    wanted = LetterFilter(stream=arguments.stream, error_class=arguments.error_class)
    letters = await MongoDeadLetters(database).list(wanted, None, arguments.limit)
    for letter in letters:
        say(
            f"{letter.letter_id} {letter.failed_at.isoformat()} {letter.stream} {letter.error_class}"
            f" after {letter.tries} tries ({letter.event_bytes} bytes): {letter.cause}"
        )
    say(f"{len(letters)} dead letters" + (" (there may be more)" if len(letters) == arguments.limit else ""))
    return EXIT_OK


async def show_dead_letter(_: ConsentConsumerSettings, arguments: argparse.Namespace, database: MongoDatabase) -> int:
    """Print one letter; its event as extended JSON in ASCII, so that nothing in it reaches the terminal raw."""
    letter = await MongoDeadLetters(database).show(arguments.id)
    if letter is None:
        say("no such dead letter")
        return EXIT_FAILED
    for name in DeadLetter.__slots__:
        value = getattr(letter, name)
        shown = json_util.dumps(value) if name == "event" else value
        say(f"{name}: {shown.isoformat() if isinstance(shown, datetime) else shown}")
    return EXIT_OK


async def replay_dead_letters(
    settings: ConsentConsumerSettings, arguments: argparse.Namespace, database: MongoDatabase
) -> int:
    """Send letters again, one at a time; status 1 if some are refused still, or if the one that is named cannot be had.

    A consumer may be at work meanwhile: what is older than what it has sent is refused by its version, and so settled.
    An error, such as that Salesforce does not answer, ends the command and leaves the letter in hand to the next one.
    """
    wanted = LetterFilter(stream=arguments.stream, error_class=arguments.error_class, letter_id=arguments.id)
    letters = MongoDeadLetters(database)
    settled = failed = 0
    place: LetterPosition | None = None
    async with open_salesforce(settings.salesforce) as salesforce:
        while settled + failed < arguments.limit:
            claim_id = str(uuid7())
            letter = await letters.claim(claim_id, wanted, place, settings.dead_letters.claim_seconds)
            if letter is None:
                break
            place = LetterPosition(letter.failed_at, letter.letter_id)
            async with _given_back_on_error(letters, letter, claim_id):
                outcome = await _replay(salesforce, letter)
            if outcome.verdict in (Verdict.STORED, Verdict.OLDER):
                settled += await letters.settle(letter.letter_id, claim_id)
            else:
                failed += 1
                await letters.give_back(letter.letter_id, claim_id, f"{outcome.code} {outcome.detail}".rstrip())
                say(f"{letter.letter_id} is refused still: {outcome.code} {outcome.detail}".rstrip())
    if arguments.id is not None and place is None:
        is_there = await letters.list(wanted, None, 1)
        claim = f"{arguments.id} is being replayed: its claim ends within {settings.dead_letters.claim_seconds:g} s"
        say(claim if is_there else "no such dead letter")
        return EXIT_FAILED
    say(f"{settled} replayed, {failed} failed")
    return EXIT_FAILED if failed else EXIT_OK


@asynccontextmanager
async def _given_back_on_error(letters: DeadLetters, letter: DeadLetter, claim_id: str) -> AsyncIterator[None]:
    """Free a claimed letter, as it was, when the block ends by an error or a cancel."""
    try:
        yield
    except BaseException:
        with suppress(DependencyUnavailable):  # the claim runs out by itself
            await letters.give_back(letter.letter_id, claim_id, None)
        raise


async def _replay(salesforce: Salesforce, letter: DeadLetter) -> Outcome:
    if not letter.is_whole:
        return EVENT_TOO_LARGE  # it may lack even its document's id
    (outcome,) = await UPDATES[letter.stream](salesforce, [Change(0, letter.event)])
    return outcome


def _text(text: str) -> str:
    if not 1 <= len(text) <= 500 or not text.isprintable():
        raise argparse.ArgumentTypeError("must be 1 to 500 printable characters")
    return text
