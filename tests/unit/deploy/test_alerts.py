"""The alert rules: what Prometheus can read, about metrics that the processes really expose, each with its section."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import promql_parser
import pytest
import yaml

from tests.support.exposed_metrics import PROCESSES, Exposed, exposed_metrics

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy" / "prometheus"
PAGE = ROOT / "docs" / "operations.md"
PROMTOOL = shutil.which("promtool")
JOBS = [service.replace("_", "-") for service in PROCESSES]
# What Prometheus itself knows of each target.
TARGET_LABELS = {"job", "instance"}
OF_PROMETHEUS = {"up": Exposed("gauge", frozenset(), ("up",))}
DURATION = re.compile(r"[1-9][0-9]*[smh]")


def _alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((RULES / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = _alerts()
NAMES = [alert["alert"] for alert in ALERTS]
# Six interpreters start to say what they expose: a busy machine takes its time.
pytestmark = pytest.mark.timeout(120)
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=NAMES)


def _samples() -> dict[str, Exposed]:
    """Return every name that PromQL may ask for, with the metric behind it."""
    metrics = [metric for service in exposed_metrics().values() for metric in service.values()]
    return OF_PROMETHEUS | {sample: metric for metric in metrics for sample in metric.samples}


def _nodes(expression: str) -> Iterator[promql_parser.Expr]:
    nodes: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expression), nodes.append)
    yield from nodes


def _selectors(expression: str) -> list[promql_parser.VectorSelector]:
    return [node for node in _nodes(expression) if isinstance(node, promql_parser.VectorSelector)]


def _grouped_by(expression: str) -> set[str]:
    """Return the labels that aggregations and matchings of the expression name."""
    labels: set[str] = set()
    for node in _nodes(expression):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            labels |= set(node.modifier.labels)
        if isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching:
            labels |= set(node.modifier.matching.labels)
    return labels


@each_alert
def test_alert_says_when_how_bad_what_and_where_to_read_on(alert: dict[str, Any]) -> None:
    """It has a name of ours, an expression, a time, a severity, two texts, and the link to its section."""
    assert set(alert) == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Lp[A-Z][A-Za-z]+", alert["alert"])
    assert DURATION.fullmatch(alert["for"])
    assert alert["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert all(text.strip().endswith(".") for name, text in alert["annotations"].items() if name != "runbook_url")
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{alert['alert'].lower()}"


@each_alert
def test_alert_asks_for_metrics_and_labels_that_the_processes_expose(alert: dict[str, Any]) -> None:
    """The expression is PromQL; each name in it is a sample of some service, each label one of that sample's."""
    known = _samples()
    selectors = _selectors(alert["expr"])
    assert selectors
    for selector in selectors:
        assert selector.name in known, f"no process exposes {selector.name}"
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= known[selector.name].labels | TARGET_LABELS
    of_all = set[str]().union(*(known[cast("str", selector.name)].labels for selector in selectors))
    assert _grouped_by(alert["expr"]) <= of_all | TARGET_LABELS


@each_alert
def test_alert_counts_what_only_grows_by_its_growth(alert: dict[str, Any]) -> None:
    """A counter is asked for over a time, under rate or increase; a gauge never is."""
    known = _samples()
    for node in _nodes(alert["expr"]):
        if not isinstance(node, promql_parser.Call):
            continue
        for argument in node.args:
            if isinstance(argument, promql_parser.MatrixSelector):
                kind = known[cast("str", argument.vector_selector.name)].kind
                assert (node.func.name in {"rate", "increase"}) == (kind in {"counter", "histogram"})
    inside = [n.vector_selector.name for n in _nodes(alert["expr"]) if isinstance(n, promql_parser.MatrixSelector)]
    for selector in _selectors(alert["expr"]):
        if known[cast("str", selector.name)].kind in {"counter", "histogram"}:
            assert selector.name in inside


def test_labels_in_annotations_are_left_by_the_expressions() -> None:
    """A text names no label that an aggregation has taken away."""
    known = _samples()
    for alert in ALERTS:
        texts = " ".join(alert["annotations"].values())
        named = set(re.findall(r"\$labels\.(\w+)", texts))
        tree = promql_parser.parse(alert["expr"])
        while isinstance(tree, promql_parser.BinaryExpr):
            tree = tree.lhs
        if isinstance(tree, promql_parser.AggregateExpr):
            left = set(tree.modifier.labels) if tree.modifier is not None else set()
        elif isinstance(tree, promql_parser.Call) and tree.func.name == "histogram_quantile":
            left = {"job"}
        else:
            left = TARGET_LABELS.union(*(known[cast("str", each.name)].labels for each in _selectors(alert["expr"])))
        assert named <= left, f"{alert['alert']} names {named - left}"


def test_each_alert_has_its_section_and_each_section_its_alert() -> None:
    """docs/operations.md has one section an alert, in the order of the rules, and each says the same three things."""
    page = PAGE.read_text("utf-8")
    sections = re.findall(r"^### (Lp\w+)\n(.*?)(?=^#)", page + "\n#", re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == NAMES
    assert len(set(NAMES)) == len(NAMES)
    for name, text in sections:
        for part in ("**Means.**", "**Look at**", "**Do.**"):
            assert part in text, f"{name} lacks {part}"


def test_every_alert_is_fired_by_a_test_for_promtool() -> None:
    """alerts_test.yml has an expectation for each alert, and none for another name."""
    tests = yaml.safe_load((RULES / "alerts_test.yml").read_text("utf-8"))["tests"]
    asked = [each for test in tests for each in test.get("promql_expr_test", ()) if each.get("exp_samples")]
    fired = {name for each in asked for name in re.findall(r'alertname="(\w+)"', each["expr"])}
    assert fired == set(NAMES)


def test_scrape_example_has_one_job_a_process() -> None:
    """prometheus.yml scrapes each service of compose and a load under the job that alerts name, and has the alerts."""
    containers = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    assert set(JOBS) <= set(containers)
    config = yaml.safe_load((RULES / "prometheus.yml").read_text("utf-8"))
    assert config["rule_files"] == ["alerts.yml"]
    assert {job["job_name"]: job["dns_sd_configs"][0]["names"] for job in config["scrape_configs"]} == {
        job: [job] for job in JOBS
    }


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt-get install prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "alerts.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    """Prometheus' own tool takes the rules and the configuration, and sees each alert fire and a calm day fire none."""
    done = subprocess.run([str(PROMTOOL), *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
