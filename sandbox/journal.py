"""What the clients write down as they go: everything they attempted, and everything they were told.

Two files of JSON lines. A line has been handed to the kernel before the request that it announces is sent, and before
the answer that it records is used, so neither a crash of the client nor one of a service can make it a lie. The audit
believes these two files and the databases, and nothing else.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sandbox.coupon_file import CouponFile

ATTEMPTED = "attempted.jsonl"
ACKNOWLEDGED = "acknowledged.jsonl"
REJECTS = "rejects"
"""Where the rejects of loaded files are kept, beside the two files."""
_CLIENT_ERROR = 400
_SERVER_ERROR = 500
_LINE_BYTES_MAX = 1024 * 1024


class Operation(StrEnum):
    """What members do, and the operator of the campaigns."""

    BROWSE_REWARDS = "browse rewards"
    SEE_REWARD = "see a reward"
    SEE_POINTS = "see points"
    REDEEM_REWARD = "redeem a reward"
    SEE_COUPON = "see a coupon"
    LIST_COUPONS = "list coupons"
    REDEEM_COUPON = "redeem a coupon"
    CANCEL_REDEMPTION = "cancel a redemption"
    BROWSE_CAMPAIGNS = "browse campaigns"
    SEE_CAMPAIGN = "see a campaign"
    CREATE_CAMPAIGN = "create a campaign"
    CHANGE_CAMPAIGN = "change a campaign"
    DELETE_CAMPAIGN = "delete a campaign"
    BAD_REQUEST = "bad request"


@dataclass(frozen=True, slots=True)
class SeededReward:
    """A reward as it was before the first request."""

    points_cost: int
    stock: int
    value_cents: int
    currency: str
    coupon_days: int


@dataclass(frozen=True, slots=True)
class Seed:
    """The state before the first request: each member's points, and each reward."""

    points: Mapping[str, int]
    rewards: Mapping[str, SeededReward]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request, written down before it was sent.

    Attributes:
        number: counts the requests of one journal, from 1.
        operation: what was asked for.
        member_id: who asked.
        target: the reward, coupon's code, redemption or campaign that it was about; empty where there is none.
        key: the idempotency key that went with it.
        expected: the outcomes that are no failure: a status, with the problem's code where there is one.
        repeats: the number of the attempt that this one repeats, with the same key, because its outcome was unknown.
        at: seconds since 1970.
        wanted: of a request that creates or changes a campaign, what it asks for; empty otherwise.
        version: which version of a campaign it is to change or delete (`If-Match`); None for any other request.
    """

    number: int
    operation: Operation
    member_id: str
    target: str
    key: str | None
    expected: tuple[str, ...]
    repeats: int | None
    at: float
    wanted: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON, to be compared field by field
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """One answer, written down before it was used.

    Attributes:
        attempt: the number of the attempt it answers.
        status: the HTTP status.
        code: the stable code of a problem; None where there is none.
        body: the JSON of an answer to a request that changes something; empty otherwise.
        seconds: how long it took.
    """

    attempt: int
    status: int
    code: str | None
    body: Mapping[str, Any]  # Any: JSON as it came, to be compared field by field
    seconds: float

    @property
    def outcome(self) -> str:
        """The status, with the problem's code where there is one: `201`, `409 sold-out`."""
        return f"{self.status} {self.code}" if self.code else str(self.status)

    @property
    def is_unknown(self) -> bool:
        """Whether its reader cannot know if the request had its effect, or still will."""
        return self.status >= _SERVER_ERROR or self.code == "request-in-progress"

    @property
    def is_refusal(self) -> bool:
        """Whether it says that the request had no effect, and never will."""
        return self.status >= _CLIENT_ERROR and not self.is_unknown


@dataclass(frozen=True, slots=True)
class ConsentWrite:
    """One write of a consent's document, written down before it was sent.

    Attributes:
        number: counts in one row with the requests.
        collection: where the document is, or is to be.
        name: the document's, see `consent_document.name_of`.
        content: what the document says when the write has had its effect; None when there is no document then.
    """

    number: int
    collection: str
    name: str
    content: Mapping[str, Any] | None  # Any: JSON, to be compared field by field


@dataclass(frozen=True, slots=True)
class Record:
    """A journal as it is read back.

    Attributes:
        seed: the state before the first request.
        attempts: every request, by its number.
        acknowledgements: every answer, by the number of its request.
        failures: why requests got no answer, by their number.
        abandoned: requests whose sender ended before an answer could come: they may have had their effect or not.
        consent_writes: every write of a consent, by its number.
        consent_outcomes: whether it had its effect, by its number; one that is not there may have had it or not.
        files: every file of coupons whose load was begun, and whether the load was told to have come to its end.
    """

    seed: Seed
    attempts: Mapping[int, Attempt]
    acknowledgements: Mapping[int, Acknowledgement]
    failures: Mapping[int, str] = field(default_factory=dict)
    abandoned: frozenset[int] = frozenset()
    consent_writes: Mapping[int, ConsentWrite] = field(default_factory=dict)
    consent_outcomes: Mapping[int, bool] = field(default_factory=dict)
    files: Mapping[CouponFile, bool] = field(default_factory=dict)


class JournalBusyError(RuntimeError):
    """Another process writes in this directory."""


class Journal:
    """Append to the two files; every method returns after the line has been handed to the kernel.

    Meant for one task or thread at a time within one event loop: no method waits for anything but the kernel's buffer.

    Args:
        directory: where the two files are; it belongs to this journal alone until it is closed.
        continued: what the directory holds already and is to be continued: numbers go on, a line that was cut off goes,
            and requests without an answer are written down as abandoned. None begins anew, with empty files.

    Raises:
        JournalBusyError: another process writes there; nothing was touched.
    """

    def __init__(self, directory: Path, *, continued: Record | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._attempted = _open(directory / ATTEMPTED)
        try:
            _take(self._attempted, directory, is_kept=continued is not None)
            self._acknowledged = _open(directory / ACKNOWLEDGED)
        except BaseException:
            os.close(self._attempted)
            raise
        _cut(self._acknowledged, is_kept=continued is not None)
        self._count = 0
        if continued is not None:
            self._count = max((*continued.attempts, *continued.consent_writes), default=0)
            known = continued.acknowledgements.keys() | continued.failures.keys() | continued.abandoned
            for number in continued.attempts.keys() - known:
                _append(self._attempted, {"abandoned": number})

    def seeded(self, seed: Seed) -> None:
        """Write down the state before the first request."""
        _append(self._attempted, {"seed": asdict(seed)})

    def attempt(
        self,
        operation: Operation,
        member_id: str,
        *,
        expected: Sequence[str],
        target: str = "",
        key: str | None = None,
        repeats: int | None = None,
        wanted: Mapping[str, Any] | None = None,  # Any: JSON
        version: int | None = None,
    ) -> Attempt:
        """Write down a request that is about to be sent, and return it with its number."""
        self._count += 1
        attempt = Attempt(
            number=self._count,
            operation=operation,
            member_id=member_id,
            target=target,
            key=key,
            expected=tuple(expected),
            repeats=repeats,
            at=time.time(),
            wanted=wanted or {},
            version=version,
        )
        _append(self._attempted, {"attempt": asdict(attempt)})
        return attempt

    def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Write down an answer that is about to be used."""
        _append(self._acknowledged, asdict(acknowledgement))

    def fail(self, attempt: Attempt, reason: str) -> None:
        """Write down, beside the attempt, why no answer came. The attempt may have had its effect nevertheless."""
        _append(self._attempted, {"failure": {"attempt": attempt.number, "reason": reason}})

    def write_consent(self, collection: str, name: str, content: Mapping[str, Any] | None) -> ConsentWrite:  # Any: JSON
        """Write down a write of a consent that is about to be sent, and return it with its number."""
        self._count += 1
        write = ConsentWrite(self._count, collection, name, content)
        _append(self._attempted, {"consent": asdict(write)})
        return write

    def settle_consent(self, write: ConsentWrite, *, had_effect: bool) -> None:
        """Write down what became of a write, by the server's answer or by a later look at the document."""
        _append(self._acknowledged, {"consent": write.number, "had_effect": had_effect})

    def load(self, file: CouponFile) -> None:
        """Write down a file whose load is about to begin."""
        _append(self._attempted, {"file": asdict(file)})

    def loaded(self, file: CouponFile) -> None:
        """Write down that the load of a file has told that all of it is loaded."""
        _append(self._acknowledged, {"file": asdict(file)})

    def close(self) -> None:
        """Close both files."""
        os.close(self._attempted)
        os.close(self._acknowledged)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(directory: Path) -> Record:
    """Read both files back.

    A last line that was cut off (the writer was killed in the middle of it) is left out: what it announces was not
    sent, what it records was not used.

    Raises:
        OSError: a file is missing.
        ValueError: a line other than the last one is damaged, or there is no seed.
    """
    seed: Seed | None = None
    attempts: dict[int, Attempt] = {}
    failures: dict[int, str] = {}
    abandoned: set[int] = set()
    consent_writes: dict[int, ConsentWrite] = {}
    files: dict[CouponFile, bool] = {}
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    for line in _lines(directory / ATTEMPTED):
        if "seed" in line:
            rewards = {name: SeededReward(**reward) for name, reward in line["seed"]["rewards"].items()}
            seed = Seed(points=line["seed"]["points"], rewards=rewards)
        elif "attempt" in line:
            fields = line["attempt"]
            # The same few answers are expected again and again: one tuple each, where there are many attempts.
            expected = tuple(fields["expected"])
            fields |= {"operation": Operation(fields["operation"]), "expected": known.setdefault(expected, expected)}
            attempts[fields["number"]] = Attempt(**fields)
        elif "abandoned" in line:
            abandoned.add(line["abandoned"])
        elif "consent" in line:
            write = ConsentWrite(**line["consent"])
            consent_writes[write.number] = write
        elif "file" in line:
            files[CouponFile(**line["file"])] = False
        else:
            failures[line["failure"]["attempt"]] = line["failure"]["reason"]
    if seed is None:
        raise ValueError(f"{directory / ATTEMPTED} does not say what was there before the first request")
    acknowledgements: dict[int, Acknowledgement] = {}
    consent_outcomes: dict[int, bool] = {}
    for line in _lines(directory / ACKNOWLEDGED):
        if "consent" in line:
            consent_outcomes[line["consent"]] = line["had_effect"]
        elif "file" in line:
            files[CouponFile(**line["file"])] = True
        else:
            acknowledgements[line["attempt"]] = Acknowledgement(**line)
    return Record(
        seed, attempts, acknowledgements, failures, frozenset(abandoned), consent_writes, consent_outcomes, files
    )


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def _take(descriptor: int, directory: Path, *, is_kept: bool) -> None:
    """Keep the directory to this journal (the kernel lets go when the process ends), and cut its first file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise JournalBusyError(f"another process writes in {directory}") from None
    _cut(descriptor, is_kept=is_kept)


def _cut(descriptor: int, *, is_kept: bool) -> None:
    """Empty a file, or, where it is kept, cut off a last line that was not finished."""
    size = os.fstat(descriptor).st_size if is_kept else 0
    start = max(0, size - _LINE_BYTES_MAX)
    os.ftruncate(descriptor, start + os.pread(descriptor, size - start, start).rfind(b"\n") + 1)


def _append(descriptor: int, line: Mapping[str, object]) -> None:
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def _lines(path: Path) -> Iterator[dict[str, Any]]:  # Any: JSON
    """Yield the whole lines one at a time: a long journal is read in little memory."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
