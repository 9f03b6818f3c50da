"""Show what the observer saw: a live table on a terminal, plain lines elsewhere."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sandbox.observation import Observation


class Screen(Protocol):
    """Where the demo shows what happens."""

    period_seconds: float

    def show(self, observation: Observation) -> None:
        """Show the present state."""

    def say(self, line: str) -> None:
        """Tell one thing that happened; it stays."""


class _Lines:
    """Plain lines, for files and pipes."""

    period_seconds = 2.0

    def __init__(self, console: Console) -> None:
        self._file = console.file

    def show(self, observation: Observation) -> None:
        """Print the state as one line."""
        self.say("  ".join(f"{name} {value}" for name, value in _facts(observation)))

    def say(self, line: str) -> None:
        """Print the line."""
        print(line, file=self._file, flush=True)


class _Board:
    """A table that is drawn anew in its place."""

    period_seconds = 0.5

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, observation: Observation) -> None:
        """Draw the table."""
        table = Table.grid(padding=(0, 3))
        for name, value in _facts(observation):
            table.add_row(Text(name, style="dim"), Text(value, style="bold"))
        instances = Text("  ").join(
            Text(f"{'●' if is_ready else '○'} {name}", style="green" if is_ready else "yellow")
            for name, is_ready in observation.instances.items()
        )
        self._live.update(Group(table, instances), refresh=True)

    def say(self, line: str) -> None:
        """Print the line above the table."""
        self._live.console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def open_screen(console: Console | None = None) -> Iterator[Screen]:
    """Choose between the table and the lines by what the console is; without one, by what standard output is."""
    console = console or Console()
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, auto_refresh=False, transient=False) as live:
        yield _Board(live)


def _facts(seen: Observation) -> list[tuple[str, str]]:
    traffic = seen.traffic
    answers = ", ".join(f"{kind} {count}" for kind, count in sorted(traffic.answers.items()))
    failed = f"{traffic.failed} failed" + (f", {traffic.excused} excused" if traffic.excused else "")
    return [
        ("time", f"{seen.seconds:.0f} s"),
        ("requests", f"{traffic.requests} ({seen.rate:.0f}/s; {answers or 'no answer yet'}; {failed})"),
        ("latency", f"p50 {_milliseconds(traffic.p50_seconds)}, p99 {_milliseconds(traffic.p99_seconds)}"),
        ("redemptions", f"{traffic.redemptions}"),
        ("outbox backlog", f"{seen.backlog}"),
        ("lag", "unknown" if seen.lag is None else f"{seen.lag}"),
        ("coupons", f"{seen.coupons}" + (f", and {seen.loaded} from files" if seen.loaded else "")),
        ("dead letters", f"{seen.dead_letters}"),
        *_consents(seen),
    ]


def _consents(seen: Observation) -> list[tuple[str, str]]:
    if seen.consents_written is None:
        return []
    written, progress = f"{seen.consents_written} writes", seen.consents
    if progress is None:
        return [("consents", f"{written}; how far they have come is unknown")]
    return [
        (
            "consents",
            f"{written}; {progress.arrived} as in Salesforce, {progress.waiting} waiting, {progress.dead_letters} dead",
        )
    ]


def _milliseconds(seconds: float | None) -> str:
    return "unknown" if seconds is None else f"{seconds * 1000:.1f} ms"
