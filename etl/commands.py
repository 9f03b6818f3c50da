"""The command line: `load`, `status` and `rejects`, each with the settings of the environment."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from signal import Signals
from typing import Annotated, Any, Final

import orjson
import typer

from etl.app import Application
from etl.errors import FileRefusedError
from etl.feeder import Feeder
from etl.rejects import read_all_rejects
from etl.report import EXIT_STATUS, Outcome
from etl.settings import Duplicates, EtlSettings, LoadOptions, OnError, Progress
from etl.source import STANDARD_INPUT, open_file
from etl.store import EtlStore
from runtime.errors import DependencyUnavailable, SettingsError
from runtime.logs import close_logs, configure_logs
from runtime.postgres import open_pool
from runtime.process import EXIT_OK, EXIT_SETTINGS, run
from runtime.settings import load_settings
from runtime.signals import hold_signals

_ENDED_BY_SIGNAL: Final = 128  # and the signal's number, as a shell has it
_USUAL: Final = LoadOptions(files=())
_EPILOG: Final = (
    "Exit statuses of load: 0 loaded; 3 loaded, with rejects (0 with --accept-rejects); 4 a file was refused; 75"
    " stopped by a signal, and the same command goes on; 1 failed; 2 wrong command line; 78 bad settings. With several"
    " files, the gravest."
)

app = typer.Typer(
    name="etl",
    help="Load CSV files of coupons into PostgreSQL, never twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
rejects_app = typer.Typer(help="The rows that were not loaded.", no_args_is_help=True)
app.add_typer(rejects_app, name="rejects")

Directory = Annotated[Path, typer.Option("--rejects-directory", help="Where the reject files are.", file_okay=False)]
OneFile = Annotated[Path, typer.Argument(help="A file that was loaded, under whatever name.")]


def run_command_line(arguments: list[str]) -> int:
    """Run the command that the arguments name, and return the process's exit status."""
    try:
        app(args=arguments)
    except SystemExit as ended:  # how Typer ends, also after a wrong command line
        return ended.code if isinstance(ended.code, int) else EXIT_OK
    except SettingsError as error:
        sys.stderr.write(f"etl: {error}\n")
        return EXIT_SETTINGS
    except (DependencyUnavailable, FileRefusedError, OSError, ValueError) as error:
        sys.stderr.write(f"etl: {error}\n")
    return EXIT_STATUS[Outcome.FAILED]


@app.command(epilog=_EPILOG)
def load(  # noqa: PLR0913, PLR0917 - one parameter an option
    files: Annotated[list[str], typer.Argument(help="CSV, plain or gzip; - is standard input.", show_default=False)],
    workers: Annotated[int, typer.Option(min=1, max=64, help="Batches that are loaded side by side.")] = _USUAL.workers,
    batch_rows: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Rows of one transaction, at most.")
    ] = _USUAL.batch_rows,
    batch_bytes: Annotated[
        int, typer.Option(min=1_024, max=64 * 1024**2, help="Bytes of the file in one transaction, at most.")
    ] = _USUAL.batch_bytes,
    on_error: Annotated[
        OnError,
        typer.Option(help="After a bad row: reject it and go on, finish what is in hand, or stop now."),
    ] = _USUAL.on_error,
    max_rejects: Annotated[
        int | None, typer.Option(min=0, help="Fail at the first bad row beyond so many.")
    ] = _USUAL.max_rejects,
    duplicates: Annotated[Duplicates, typer.Option(help="Which row with a code stays.")] = _USUAL.duplicates,
    share: Annotated[
        bool, typer.Option("--share", help="Load parts of each file while other processes load the others.")
    ] = _USUAL.is_shared,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check each row by itself, load nothing; no database is needed.")
    ] = False,
    progress: Annotated[Progress, typer.Option(help="A bar needs a terminal.")] = _USUAL.progress,
    report: Annotated[Path | None, typer.Option(dir_okay=False, help="Where to write what was done, as JSON.")] = None,
    rejects_directory: Directory = _USUAL.rejects_directory,
    accept_rejects: Annotated[
        bool, typer.Option("--accept-rejects", help="End with 0, not 3, where rows were rejected.")
    ] = False,
) -> None:
    """Load files, one after another; what was loaded before is not loaded again."""
    if share and STANDARD_INPUT in files:
        raise typer.BadParameter("each process would have a standard input of its own", param_hint="--share")
    options = LoadOptions(
        files=tuple(files),
        workers=workers,
        batch_rows=batch_rows,
        batch_bytes=batch_bytes,
        on_error=on_error,
        max_rejects=max_rejects,
        duplicates=duplicates,
        is_shared=share,
        accepts_rejects=accept_rejects,
        is_dry_run=dry_run,
        progress=progress,
        report=report,
        rejects_directory=rejects_directory,
    )
    raise typer.Exit(run(EtlSettings, lambda settings: Application(settings, options)))


@app.command()
def status(file: OneFile) -> None:
    """Say what the ledger knows of a file's content, as JSON."""

    async def ask(settings: EtlSettings) -> None:
        async with open_pool(settings.postgres, application_name="etl-command") as pool:
            found = await EtlStore(pool).status(await _content_sha256(file, settings))
        if found is None:
            sys.stderr.write("etl: nothing of this content was loaded\n")
            raise typer.Exit(EXIT_STATUS[Outcome.REFUSED])
        sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())

    _run(ask)


@rejects_app.command("show")
def show_rejects(file: OneFile, rejects_directory: Directory = _USUAL.rejects_directory) -> None:
    """List the bad rows of a file: line and reason."""

    async def show(settings: EtlSettings) -> None:
        for row in read_all_rejects(rejects_directory, await _content_sha256(file, settings)):
            sys.stdout.write(f"line {row.line}: {row.reason}\n")

    _run(show)


@rejects_app.command("export")
def export_rejects(file: OneFile, rejects_directory: Directory = _USUAL.rejects_directory) -> None:
    """Write the bad rows as they were, under their file's header: to be mended, and loaded as a file of its own."""

    async def export(settings: EtlSettings) -> None:
        async with open_file(str(file), settings) as source:
            header, _ = await Feeder(source, settings, LoadOptions(files=())).read_header()
            rows = read_all_rejects(rejects_directory, source.content_sha256)
        sys.stdout.buffer.write(",".join(header.columns).encode() + b"\n")
        sys.stdout.buffer.writelines(row.raw + b"\n" for row in rows)

    _run(export)


async def _content_sha256(file: Path, settings: EtlSettings) -> bytes:
    async with open_file(str(file), settings) as source:
        return source.content_sha256


def _run(ask: Callable[[EtlSettings], Coroutine[Any, Any, None]]) -> None:  # Any: nothing is sent to a coroutine
    hold_signals().attach(_end_at_once)
    settings = load_settings(EtlSettings)
    configure_logs(settings)
    try:
        asyncio.run(ask(settings))
    finally:
        close_logs()


def _end_at_once(number: Signals) -> None:
    """End a command that only reads, and may end anywhere; no exception would reach a thread that waits for input."""
    os._exit(_ENDED_BY_SIGNAL + number)
