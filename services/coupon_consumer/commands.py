"""The operator's commands: `reset-offsets` and `dead-letters list|show|replay`; each reads the service's settings."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import cast
from uuid import UUID

from runtime.command import EXIT_FAILED, EXIT_OK, count_of, say
from runtime.kafka_client import client_config
from runtime.kafka_topic import KafkaTopic
from runtime.postgres import PostgresPool, open_pool
from services.coupon_consumer.dead_letters import DeadLetters
from services.coupon_consumer.settings import CouponConsumerSettings
from services.coupon_consumer.store import CouponStore

Command = Callable[[CouponConsumerSettings, argparse.Namespace, PostgresPool], Awaitable[int]]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; without a command the service runs."""
    parser = argparse.ArgumentParser(
        prog="python -m services.coupon_consumer",
        description="Consume coupon events; without a command, until a signal.",
    )
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands")

    reset = commands.add_parser(
        "reset-offsets", help="move the stored offsets; members that are running notice and follow"
    )
    reset.add_argument("--to", type=_target, required=True, help="earliest, latest, an offset, or an RFC 3339 time")
    reset.add_argument("--partition", type=int, action="append", help="only this one; may be repeated")
    reset.set_defaults(command=reset_offsets)

    letters = commands.add_parser("dead-letters", help="look at records that could not be stored, and replay them")
    words = letters.add_subparsers(required=True)
    lister = words.add_parser("list", help="one line a letter, oldest first")
    lister.add_argument("--class", dest="error_class", help="only letters of this class of error")
    lister.add_argument("--all", action="store_true", help="also those that were replayed")
    lister.add_argument("--limit", type=count_of, default=100)
    lister.set_defaults(command=list_dead_letters)
    shower = words.add_parser("show", help="all that is known of one letter")
    shower.add_argument("id", type=UUID)
    shower.set_defaults(command=show_dead_letter)
    replayer = words.add_parser("replay", help="store the events of letters by today's rules")
    which = replayer.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", type=UUID, action="append", help="only this one; may be repeated")
    which.add_argument("--class", dest="error_class", help="only letters of this class of error")
    which.add_argument("--all", action="store_true")
    replayer.add_argument("--limit", type=count_of, default=10_000)
    replayer.set_defaults(command=replay_dead_letters)
    return parser


def run_command(settings: CouponConsumerSettings, arguments: argparse.Namespace) -> int:
    """Run the command that was parsed and return the exit status; raises what its servers raise."""
    return asyncio.run(_run(settings, arguments))


async def _run(settings: CouponConsumerSettings, arguments: argparse.Namespace) -> int:
    async with open_pool(settings.postgres, application_name=f"{settings.service}-command") as pool:
        return await cast("Command", arguments.command)(settings, arguments, pool)


async def reset_offsets(settings: CouponConsumerSettings, arguments: argparse.Namespace, pool: PostgresPool) -> int:
    """Store other offsets for the topic as it is now and say which; where one is not there, status 1 and no change."""
    config = await asyncio.to_thread(client_config, settings.kafka, name=f"{settings.service}-command")
    topic = KafkaTopic(config, settings.consumer.topic)
    description = await topic.describe()
    partitions: Sequence[int] = arguments.partition or description.partitions
    unknown = sorted(set(partitions) - set(description.partitions))
    if unknown:
        say(f"no such partition: {unknown}")
        return EXIT_FAILED
    target = arguments.to
    if target == "earliest":
        offsets = await topic.earliest(partitions)
    elif target == "latest":
        offsets = await topic.latest(partitions)
    elif isinstance(target, datetime):
        offsets = await topic.at_time(partitions, round(target.timestamp() * 1_000))
    else:
        offsets = dict.fromkeys(partitions, target)
    store = CouponStore(pool, group=settings.consumer.group, topic=settings.consumer.topic)
    if isinstance(target, int) and (refusals := await _outside(target, partitions, topic, store, description.topic_id)):
        for line in refusals:
            say(line)
        return EXIT_FAILED
    await store.move_offsets(description.topic_id, offsets)
    for partition, offset in sorted(offsets.items()):
        say(f"{settings.consumer.group} {settings.consumer.topic} partition {partition}: next offset {offset}")
    return EXIT_OK


async def _outside(
    offset: int, partitions: Sequence[int], topic: KafkaTopic, store: CouponStore, topic_id: str
) -> list[str]:
    """Say of each partition that has no such offset, neither a record nor the end: a member would stand there for ever.

    What was read counts as there, whatever the broker says of the end: the embedded one names its last batch's start.
    """
    first, end = await topic.earliest(partitions), await topic.latest(partitions)
    stored = await store.load_offsets(topic_id, partitions)
    bounds = {partition: (first[partition], max(end[partition], stored.get(partition, 0))) for partition in partitions}
    return [
        f"partition {partition} has no offset {offset}: it has {low} to {high}"
        for partition, (low, high) in bounds.items()
        if not low <= offset <= high
    ]


async def list_dead_letters(settings: CouponConsumerSettings, arguments: argparse.Namespace, pool: PostgresPool) -> int:
    """Print one line a letter."""
    rows = await _dead_letters(settings, pool).list(
        error_class=arguments.error_class, with_replayed=arguments.all, limit=arguments.limit
    )
    for row in rows:
        size = "no payload" if row["payload_bytes"] is None else f"{row['payload_bytes']} bytes"
        done = f" replayed {row['replayed_at'].isoformat()}" if row["replayed_at"] else ""
        say(
            f"{row['id']} {row['failed_at'].isoformat()} partition {row['partition']} offset {row['record_offset']}"
            f" {row['error_class']} ({size}): {row['error_detail']}{done}"
        )
    say(f"{len(rows)} dead letters" + (" (there may be more)" if len(rows) == arguments.limit else ""))
    return EXIT_OK


async def show_dead_letter(settings: CouponConsumerSettings, arguments: argparse.Namespace, pool: PostgresPool) -> int:
    """Print one letter; key and payload as Python writes bytes, so that nothing in them reaches the terminal raw."""
    row = await _dead_letters(settings, pool).show(arguments.id)
    if row is None:
        say("no such dead letter")
        return EXIT_FAILED
    for name, value in row.items():
        shown = json.dumps(json.loads(value)) if name == "headers" else value
        say(f"{name}: {shown.isoformat() if isinstance(shown, datetime) else shown}")
    return EXIT_OK


async def replay_dead_letters(
    settings: CouponConsumerSettings, arguments: argparse.Namespace, pool: PostgresPool
) -> int:
    """Replay letters; status 1 if some still cannot be stored, or if one that is named cannot be had."""
    letters = _dead_letters(settings, pool)
    replayed = await letters.replay(ids=arguments.id, error_class=arguments.error_class, limit=arguments.limit)
    for letter, reason in replayed.failed.items():
        say(f"{letter} still cannot be stored: {reason}")
    is_cut_off = replayed.settled + len(replayed.failed) == arguments.limit
    missed = [] if is_cut_off else await _missed(letters, set(arguments.id or ()) - replayed.failed.keys())
    for line in missed:
        say(line)
    say(f"{replayed.settled} replayed, {replayed.changed} coupons changed, {len(replayed.failed)} failed")
    return EXIT_FAILED if replayed.failed or missed else EXIT_OK


async def _missed(letters: DeadLetters, ids: Collection[UUID]) -> list[str]:
    """Say of each letter that is not replayed by now why it is not."""
    missed = []
    for letter in sorted(ids):
        row = await letters.show(letter)
        if row is None:
            missed.append(f"{letter}: no such dead letter")
        elif row["replayed_at"] is None:
            missed.append(f"{letter} is being replayed by another")
    return missed


def _dead_letters(settings: CouponConsumerSettings, pool: PostgresPool) -> DeadLetters:
    return DeadLetters(pool, group=settings.consumer.group, topic=settings.consumer.topic)


def _target(text: str) -> str | int | datetime:
    if text in {"earliest", "latest"}:
        return text
    if text.isdecimal() and text.isascii():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be earliest, latest, an offset, or an RFC 3339 time") from None
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError("a time needs its offset, such as Z or +02:00")
    return time
