"""What the Job in `deploy/kubernetes` promises, read as it stands: no cluster is asked."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from deploy.secrets import READERS
from etl.commands import app
from etl.report import EXIT_STATUS, Outcome
from etl.settings import EtlSettings, LoadOptions
from runtime.process import EXIT_SETTINGS
from runtime.settings import load_settings

ROOT: Final = Path(__file__).resolve().parents[3]
Section = dict[str, Any]  # a YAML document: what is in it, the tests find out
JOB: Final[Section] = yaml.safe_load((ROOT / "deploy/kubernetes/etl-job.yaml").read_text("utf-8"))
COMPOSE: Final[Section] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]["etl"]
SPEC: Final[Section] = JOB["spec"]
POD: Final[Section] = SPEC["template"]["spec"]
CONTAINER: Final[Section] = POD["containers"][0]
ENVIRONMENT: Final[dict[str, str]] = {one["name"]: one["value"] for one in CONTAINER["env"]}
MOUNTS: Final[dict[str, Section]] = {one["name"]: one for one in CONTAINER["volumeMounts"]}
HARD_STOP_SECONDS: Final = 3.0
EXIT_USAGE: Final = 2
"""What a wrong command line ends with."""


def load_parameters(arguments: list[str]) -> dict[str, Any]:
    """Return what the command line makes of arguments, without running anything."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    name, *rest = arguments
    return group.commands[name].make_context(name, rest).params


def statuses(action: str) -> set[int]:
    """Return the exit statuses of the container for which the failure policy has an action."""
    rules = [rule for rule in SPEC["podFailurePolicy"]["rules"] if rule["action"] == action and "onExitCodes" in rule]
    assert all(rule["onExitCodes"]["containerName"] == CONTAINER["name"] for rule in rules)
    assert all(rule["onExitCodes"]["operator"] == "In" for rule in rules)
    return {status for rule in rules for status in rule["onExitCodes"]["values"]}


def test_the_job_has_one_pod_an_index_and_starts_all_of_them() -> None:
    """Each index has a share; the failure policy asks for pods that are not restarted in their place."""
    assert (JOB["apiVersion"], JOB["kind"], SPEC["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert SPEC["completions"] == SPEC["parallelism"] == 3
    assert POD["restartPolicy"] == "Never"
    assert SPEC["backoffLimitPerIndex"] > 0
    assert len(POD["containers"]) == 1


def test_the_command_line_is_one_of_the_etl_and_shares_the_file() -> None:
    """The command takes the arguments; the file and the rejects are where a volume is mounted."""
    parameters = load_parameters(CONTAINER["args"])
    assert parameters["share"] is True
    assert parameters["accept_rejects"] is True
    (file,) = parameters["files"]
    assert Path(file).parent == Path(MOUNTS["files"]["mountPath"])
    assert MOUNTS["files"]["readOnly"] is True
    assert parameters["rejects_directory"] == Path(MOUNTS["rejects"]["mountPath"])
    assert "readOnly" not in MOUNTS["rejects"]


def test_each_variable_is_a_setting_and_none_that_is_needed_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings are read from the pod's environment as the process reads them, with the secret as a file."""
    password = Path(ENVIRONMENT["ETL_POSTGRES__PASSWORD_FILE"])
    assert password.parent == Path(MOUNTS["secrets"]["mountPath"])
    assert password.name in READERS["etl"]
    (tmp_path / "password").write_text("secret")
    for name, value in (ENVIRONMENT | {"ETL_POSTGRES__PASSWORD_FILE": str(tmp_path / "password")}).items():
        monkeypatch.setenv(name, value)
    settings = load_settings(EtlSettings)
    assert settings.postgres.user == "etl"
    assert settings.admin.port == CONTAINER["ports"][0]["containerPort"]
    assert POD["terminationGracePeriodSeconds"] > settings.grace_seconds + HARD_STOP_SECONDS


def test_the_failure_policy_tells_what_another_try_mends_from_what_it_does_not() -> None:
    """Stopped is tried again for nothing, a disruption as well; refused and wrong end the Job; failed is counted."""
    assert statuses("FailJob") == {EXIT_USAGE, EXIT_STATUS[Outcome.REFUSED], EXIT_SETTINGS}
    assert statuses("Ignore") == {EXIT_STATUS[Outcome.STOPPED]}
    assert statuses("Count") | statuses("FailIndex") == set()
    disruptions = [rule for rule in SPEC["podFailurePolicy"]["rules"] if "onPodConditions" in rule]
    assert [(rule["action"], rule["onPodConditions"][0]["type"]) for rule in disruptions] == [
        ("Ignore", "DisruptionTarget")
    ]


def test_the_pod_is_contained_as_the_container_of_compose_is() -> None:
    """The same image, variables and memory; nobody's root, nothing to write to but volumes, no privilege."""
    assert CONTAINER["image"] == re.sub(r"\$\{\w+:-(\w+)\}", r"\1", COMPOSE["image"])
    compose = {name: value for name, value in COMPOSE["environment"].items() if name != "ETL_SPOOL_DIRECTORY"}
    assert ENVIRONMENT.items() >= compose.items()
    assert CONTAINER["resources"]["limits"]["memory"] == COMPOSE["mem_limit"].removesuffix("m") + "Mi"
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["runAsUser"] == POD["securityContext"]["fsGroup"] == 10001
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": COMPOSE["cap_drop"]},
    }
    assert POD["enableServiceLinks"] is POD["automountServiceAccountToken"] is False


def test_every_volume_is_mounted_and_the_secret_is_read_by_its_group_alone() -> None:
    """Each mount has its volume, and each volume a mount."""
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    assert volumes.keys() == MOUNTS.keys()
    assert volumes["secrets"]["secret"]["defaultMode"] == 0o440
    assert MOUNTS["secrets"]["readOnly"] is True


def test_three_pods_fit_into_the_connections_that_a_load_is_given() -> None:
    """What the pods open at most is told in the operations guide, where `max_connections` is counted."""
    workers = load_parameters(CONTAINER["args"])["workers"]
    assert workers == LoadOptions(files=()).workers
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    assert f"{SPEC['parallelism']} x {workers + 2} connections" in text
