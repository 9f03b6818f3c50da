"""The rows of a benchmark run, and the page they are written to."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


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


def describe_machine() -> str:
    """Name processor, cores, kernel and interpreter: what a reader needs to place the figures."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    processor = model[1] if model else platform.processor() or platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores; {platform.system()} {platform.release()}; "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def render(rows: list[Row], servers: list[str], date: str) -> str:
    """Write the page: the machine, the servers, one line a figure."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `make bench`. Every figure is a ratio against a reference measured in the same run, the median of",
        "several alternating pairs; absolute rates are there to judge the ratio by, not to compare machines.",
        "",
        f"- date: {date}",
        f"- machine: {describe_machine()}",
        *(f"- server: {server}" for server in servers),
        "",
        "| what | ratio | goal | reached | behind it |",
        "|---|---|---|---|---|",
        *(
            f"| {row.name} | {row.ratio:.2f} | {row.goal} | {'yes' if row.reached else '**no**'} | {row.detail} |"
            for row in rows
        ),
        "",
    ]
    return "\n".join(lines)
