"""consent_consumer without one of its guards: `python -m tests.support.unguarded_consent_consumer --without fence`."""

import sys
from collections.abc import Iterable, Sequence
from typing import Final

from bson import Timestamp

from services.consent_consumer import salesforce, update
from services.consent_consumer.__main__ import main
from services.consent_consumer.change_stream import Change
from services.consent_consumer.courier import Courier, _Parcel
from services.consent_consumer.dead_letters import DeadLetter, MongoDeadLetters
from services.consent_consumer.outcome import STORED, Outcome
from services.consent_consumer.position import StreamLedger
from services.consent_consumer.record import Record, version
from services.consent_consumer.salesforce import Salesforce
from services.consent_consumer.store import MongoConsentStore, Position, _moved, waiting_helps
from tests.support.unguarded import Removal, put, run_without


def send_one_version() -> None:
    """Give every change the same version, so that Salesforce cannot tell an older one from a newer one."""
    first = version(Timestamp(1, 1))

    def one_version(cluster_time: Timestamp) -> int:
        del cluster_time
        return first

    put(update, "version", one_version)


def save_what_was_read() -> None:
    """Save the place of the last event that was read, whatever became of it and of those before it."""

    def savable(self: StreamLedger) -> Position | None:
        return None if self._read == self._saved else self._read

    StreamLedger.savable = savable  # type: ignore[method-assign] # the guard, removed


def save_from_any_lease() -> None:
    """Save a place under a lease that is over, and a step back as well."""

    async def save_position(self: MongoConsentStore, stream: str, position: Position, fence: int) -> None:
        del fence
        self._reach("before-save")
        with waiting_helps(self._database):
            await self._positions.update_one({"_id": stream}, _moved(position))
        self._reach("after-save")

    MongoConsentStore.save_position = save_position  # type: ignore[method-assign] # the guard, removed


def believe_the_status() -> None:
    """Take 200 for an answer that all records are stored."""

    def all_stored(results: Sequence[object], version_rule: str) -> list[Outcome]:
        del version_rule
        return [STORED] * len(results)

    put(salesforce, "judge", all_stored)


def send_each_change() -> None:
    """Make a record of each change, also of those of one document in one call; the client's own check goes, too."""

    def each(self: Courier, due: Iterable[_Parcel], changes: Iterable[Change]) -> list[_Parcel]:
        del self
        return [*due, *(_Parcel(change, [change.number]) for change in changes)]

    async def upsert(self: Salesforce, object_type: str, records: Sequence[Record]) -> list[Outcome]:
        return await self._store(object_type, records)

    Courier._merged = each  # type: ignore[method-assign] # the guard, removed
    Salesforce.upsert = upsert  # type: ignore[method-assign] # the check, removed


def bury_later() -> None:
    """Let an event be settled before its letter is written: it is written together with the next one."""
    put_off: list[DeadLetter] = []
    bury = MongoDeadLetters.bury

    async def bury_the_last_ones(self: MongoDeadLetters, letters: Sequence[DeadLetter]) -> int:
        due = [*put_off]
        put_off[:] = letters
        return await bury(self, due)

    MongoDeadLetters.bury = bury_the_last_ones  # type: ignore[method-assign] # the guard, removed


GUARDS: Final[dict[str, Removal]] = {
    "version": send_one_version,
    "settled-prefix": save_what_was_read,
    "fence": save_from_any_lease,
    "results": believe_the_status,
    "one-record": send_each_change,
    "letter-first": bury_later,
}


def _main() -> int:
    del sys.argv[1:]  # the service itself takes an argument for one of its commands
    return main()


if __name__ == "__main__":
    sys.exit(run_without(GUARDS, _main))
