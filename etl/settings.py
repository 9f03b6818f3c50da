"""What a load can be told: by the environment, where the servers are; by the command line, what to load and how."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from runtime.crash_point import CrashSettings
from runtime.settings import AdminSettings, PostgresSettings, ProcessSettings, Seconds, Section


class OnError(StrEnum):
    """What a bad row or a failed batch means: for the others nothing, their orderly end, or their end now."""

    REJECT = "reject"
    FINISH = "finish"
    STOP = "stop"


class Duplicates(StrEnum):
    """Which of the rows with one code stays, by their lines, or that none may meet another."""

    FIRST = "first"
    LAST = "last"
    FAIL = "fail"


class Progress(StrEnum):
    """How progress is shown; on no terminal a bar becomes a log line every ten seconds."""

    BAR = "bar"
    LOG = "log"
    NONE = "none"


class EtlPostgresSettings(PostgresSettings):
    """As of any process, for its own database and role, with the patience that a large batch on a slow disk needs."""

    database: str = Field(default="coupons", min_length=1, max_length=63)
    user: str = Field(default="etl", min_length=1, max_length=63)
    statement_timeout_seconds: Seconds = 60.0
    lock_timeout_seconds: Seconds = 30.0


class RetrySettings(Section):
    """Bound the tries while Postgres is away or its disk is full: `give_up_seconds` in all, for one batch."""

    first_seconds: Seconds = 0.2
    most_seconds: Seconds = 5.0
    give_up_seconds: Seconds = 120.0

    def conflicts(self) -> Iterator[str]:
        """Yield times that are out of order."""
        if self.first_seconds > self.most_seconds:
            yield "first_seconds is greater than most_seconds"


class ShareSettings(Section):
    """Divide a file among processes, all of which should have the same `part_bytes`; without, they work for nothing.

    `lease_seconds` is how long a process may be frozen before others take its parts over; `look_seconds`, how often
    one that found all parts taken looks again.
    """

    part_bytes: int = Field(default=16 * 1024**2, ge=1_024, le=2**40)
    lease_seconds: Seconds = 30.0
    look_seconds: Seconds = 1.0


class EtlSettings(ProcessSettings):
    """The settings of one load; `ETL_POSTGRES__HOST` is `postgres.host`.

    Attributes:
        retry: the waits for Postgres.
        share: how several processes load one file.
        record_bytes_max: a longer record is rejected.
        content_bytes_max: a file with more than that, after decompression, is refused.
        spool_directory: where standard input is kept while it is loaded.
    """

    model_config = SettingsConfigDict(env_prefix="ETL_", env_nested_delimiter="__")

    service: ClassVar[str] = "etl"
    stopped_status: ClassVar[int] = 75  # EX_TEMPFAIL of sysexits.h: the same command again goes on

    admin: AdminSettings = AdminSettings(port=0)
    postgres: EtlPostgresSettings = EtlPostgresSettings()
    retry: RetrySettings = RetrySettings()
    share: ShareSettings = ShareSettings()
    record_bytes_max: int = Field(default=65_536, ge=128, le=16_777_216)
    content_bytes_max: int = Field(default=64 * 1024**3, ge=1, le=2**50)
    spool_directory: Path = Path(tempfile.gettempdir())
    crash: CrashSettings = CrashSettings()


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """One `load` as the command line has it.

    Attributes:
        files: paths, or `-` for standard input; loaded one after another.
        workers: how many batches are loaded side by side.
        batch_rows: how many records one transaction takes at most.
        batch_bytes: how many bytes of the file it takes at most.
        on_error: what a bad row or a failed batch means for the others.
        max_rejects: the load fails at the first row beyond that many of a file; None for no limit.
        duplicates: which of two rows with one code stays.
        is_shared: other processes load the same files at the same time.
        accepts_rejects: bad rows are no reason for another exit status than 0.
        is_dry_run: read and check all, and load nothing; no database is needed.
        progress: how progress is shown.
        report: where the report is written, or None.
        rejects_directory: where the reject files are.
    """

    files: tuple[str, ...]
    workers: int = 2
    batch_rows: int = 50_000
    batch_bytes: int = 8 * 1024 * 1024
    on_error: OnError = OnError.REJECT
    max_rejects: int | None = None
    duplicates: Duplicates = Duplicates.FIRST
    is_shared: bool = False
    accepts_rejects: bool = False
    is_dry_run: bool = False
    progress: Progress = Progress.BAR
    report: Path | None = None
    rejects_directory: Path = Path("rejects")
