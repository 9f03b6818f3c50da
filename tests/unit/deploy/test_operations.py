"""docs/operations.md: its table of metrics, its commands and its statuses are those of the code."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from etl import commands as etl_commands
from loyalty import errors
from runtime.hard_stop import EXIT_FAILED
from runtime.process import EXIT_OK, EXIT_SETTINGS
from services.consent_consumer import commands as consent_commands
from services.coupon_consumer.commands import build_parser
from tests.support.exposed_metrics import exposed_metrics

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
COMMAND = re.compile(r"^docker compose exec coupon-consumer python -m services\.coupon_consumer (.*)$", re.MULTILINE)
CONSENT_COMMAND = re.compile(
    r"^docker compose (?:exec consent-consumer python -m|run --rm --no-deps consent-consumer)"
    r" services\.consent_consumer (.*)$",
    re.MULTILINE,
)
ETL_COMMAND = re.compile(r"^docker compose run --rm (?:--no-TTY )?etl ([^>\n]*)", re.MULTILINE)
# Six interpreters start to say what they expose: a busy machine takes its time.
pytestmark = pytest.mark.timeout(120)
SUFFIXES = {"counter": "_total", "info": "_info"}


def test_table_of_metrics_is_what_the_processes_expose() -> None:
    """Each metric of a service or of a load is in the table with its kind and labels, and the table has no other."""
    rows = re.findall(r"^\| `((?:lp|python)_\w+)` \| (\w+) \| ([^|]*) \| [^|]+ \|$", PAGE, re.MULTILINE)
    told = [(name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows]
    exposed = {
        (name + SUFFIXES.get(metric.kind, ""), metric.kind, metric.labels - {"le"})
        for metrics in exposed_metrics().values()
        for name, metric in metrics.items()
    }
    assert set(told) == exposed
    assert len(told) == len(exposed)


def test_metrics_and_alerts_named_in_the_text_exist() -> None:
    """Whatever the text calls lp_... is a sample that some process exposes; whatever it calls Lp... is an alert."""
    samples = {
        sample for metrics in exposed_metrics().values() for metric in metrics.values() for sample in metric.samples
    }
    histograms = {
        name for metrics in exposed_metrics().values() for name, metric in metrics.items() if metric.kind == "histogram"
    }
    assert set(re.findall(r"\blp_\w+", PAGE)) <= samples | histograms
    assert set(re.findall(r"\bLp[A-Z]\w+", PAGE)) == set(re.findall(r"^### (Lp\w+)$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("line", COMMAND.findall(PAGE))
def test_command_of_the_page_is_understood(line: str) -> None:
    """The service's own parser takes the command as it stands, and a class of error in it is one that records get."""
    arguments = build_parser().parse_args(shlex.split(line))
    assert arguments.command is not None
    error_class = getattr(arguments, "error_class", None)
    assert error_class is None or issubclass(getattr(errors, error_class), errors.EventError)


@pytest.mark.parametrize("line", CONSENT_COMMAND.findall(PAGE))
def test_command_about_consents_is_understood(line: str) -> None:
    """The parser of consent_consumer takes the command as it stands."""
    assert consent_commands.build_parser().parse_args(shlex.split(line)).command is not None


@pytest.mark.parametrize("line", ETL_COMMAND.findall(PAGE))
def test_command_about_files_is_understood(line: str) -> None:
    """The ETL's own parser takes the command as it stands."""
    words = shlex.split(line)
    command: Any = typer.main.get_command(etl_commands.app)  # Any: Typer keeps its commands' types to itself
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    assert command.make_context("etl", words).params["files" if command.name == "load" else "file"]


def test_page_shows_every_word_of_the_commands() -> None:
    """Each command has its example."""
    lines = COMMAND.findall(PAGE)
    for words in ("dead-letters list", "dead-letters show", "dead-letters replay", "reset-offsets"):
        assert any(line.startswith(words) for line in lines), words
    lines = CONSENT_COMMAND.findall(PAGE)
    for words in ("dead-letters list", "dead-letters show", "dead-letters replay", "positions", "skip"):
        assert any(line.startswith(words) for line in lines), words


def test_table_of_statuses_has_those_of_the_code() -> None:
    """The statuses that a process or a command ends with each have their row."""
    rows = re.findall(r"^\| (\d+) \|", PAGE.partition("## Rolling restart")[0], re.MULTILINE)
    assert {str(status) for status in (EXIT_OK, EXIT_FAILED, EXIT_SETTINGS)} <= set(rows)
    assert rows == sorted(rows, key=int)


def test_sum_of_connections_is_held_against_the_bound_in_compose() -> None:
    """The bound in the page's arithmetic, which runs with the documentation, is the one of docker-compose.yml."""
    (bound,) = re.findall(r"<= (\d+)  # max_connections in docker-compose\.yml", PAGE)
    assert f"max_connections={bound}]" in (ROOT / "docker-compose.yml").read_text("utf-8")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_link_of_the_page_leads_somewhere(target: str) -> None:
    """A link is a file of this project or a section of the page."""
    file, _, anchor = target.partition("#")
    assert (ROOT / "docs" / file).exists()
    if anchor and not file:
        headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
