"""The rows of a benchmark run, and the page they are written to."""

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.servers import Servers

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_TITLES = {Servers.EMBEDDED: "on embedded servers", Servers.COMPOSE: "on Apache Kafka"}
_HEAD = f"| what | goal | {_TITLES[Servers.EMBEDDED]} | {_TITLES[Servers.COMPOSE]} |"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: a ratio against a reference that was measured in the same run.

    `goal` is the bound as text (`>= 0.5`, `<= 3`, `= 0`), `detail` what lies behind the ratio.
    """

    name: str
    ratio: float
    goal: str
    detail: str

    @property
    def reached(self) -> bool:
        """Say whether the ratio keeps the bound."""
        relation, bound = self.goal.split()
        limit = float(bound)
        return {">=": self.ratio >= limit, "<=": self.ratio <= limit, "=": self.ratio == limit}[relation]

    @property
    def cell(self) -> str:
        """The figure as a cell of the page's table."""
        return f"**{self.ratio:.2f}**{'' if self.reached else ' (missed)'}: {self.detail}"


@dataclass(slots=True)
class Page:
    """What docs/benchmarks.md holds: of each kind of servers a note on the run, and of each figure a cell."""

    notes: dict[Servers, str] = field(default_factory=dict)
    goals: dict[str, str] = field(default_factory=dict)
    cells: dict[tuple[str, Servers], str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Page":
        """Read a page that `render` has written; of anything else nothing is kept."""
        page = cls()
        for servers, title in _TITLES.items():
            if note := re.search(rf"^- {title}: (.+)$", text, re.MULTILINE):
                page.notes[servers] = note[1]
        _, found, table = text.partition(_HEAD)
        for line in table.splitlines()[2:] if found else ():
            name, goal, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            page.goals[name] = goal
            page.cells.update({(name, servers): cell for servers, cell in zip(_TITLES, cells, strict=True) if cell})
        return page

    def put(self, servers: Servers, rows: list[Row], note: str) -> None:
        """Put a run's figures in place of all earlier ones on the same servers; those on others stay."""
        self.cells = {place: cell for place, cell in self.cells.items() if place[1] is not servers}
        self.notes[servers] = note
        for row in rows:
            self.goals[row.name] = row.goal
            self.cells[row.name, servers] = row.cell

    def render(self) -> str:
        """Write the page: the machines and servers, one line a figure."""
        names = [name for name in self.goals if any((name, servers) in self.cells for servers in _TITLES)]
        return "\n".join(
            [
                "# Benchmarks",
                "",
                "Made by `make bench` and `make bench SERVERS=compose`. Every figure is a ratio against a reference",
                "measured in the same run, the median of several alternating pairs; absolute rates are there to judge",
                "the ratio by, not to compare machines. Of compose's stack only the two servers run: the services are",
                "processes of the machine here, too.",
                "",
                *(f"- {_TITLES[servers]}: {note}" for servers, note in sorted(self.notes.items(), reverse=True)),
                "",
                _HEAD,
                "|---|---|---|---|",
                *(
                    f"| {name} | {self.goals[name]} | "
                    + " | ".join(self.cells.get((name, servers), "") for servers in _TITLES)
                    + " |"
                    for name in names
                ),
                "",
            ]
        )


def describe_machine() -> str:
    """Name processor, cores, kernel and interpreter: what a reader needs to place the figures."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = model[1] if model else platform.processor() or platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores; {platform.system()} {platform.release()}; "
        f"{platform.python_implementation()} {platform.python_version()}"
    )
