"""What `docker-compose.yml` promises, read as it stands: no engine is asked."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.mongo_settings import MongoSetupSettings
from deploy.secrets import READERS
from deploy.settings import MigrateSettings
from deploy.topics import TopicsSettings
from etl.settings import EtlSettings, LoadOptions
from runtime.settings import EnvironmentSettings, PostgresSettings, ProcessSettings
from sandbox.members.settings import MembersSettings
from sandbox.salesforce.settings import read_arguments
from services.campaign_api.settings import CampaignApiSettings
from services.consent_consumer.settings import ConsentConsumerSettings
from services.coupon_api.settings import CouponApiSettings
from services.coupon_consumer.settings import CouponConsumerSettings
from services.reward_store.settings import RewardStoreSettings

ROOT: Final = Path(__file__).resolve().parents[3]
Section = dict[str, Any]  # a YAML document: what is in it, the tests find out
COMPOSE: Final[Section] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: Final[dict[str, Section]] = COMPOSE["services"]
LOADS: Final = frozenset(name for name, service in SERVICES.items() if "profiles" in service)
"""What an operator runs by hand, and `up` leaves out."""
JOBS: Final = frozenset(name for name, service in SERVICES.items() if service.get("restart") == "no") - {"demo"} - LOADS
LASTING: Final = sorted(SERVICES.keys() - JOBS - LOADS)
OURS: Final[dict[str, type[ProcessSettings]]] = {
    "reward-store": RewardStoreSettings,
    "coupon-api": CouponApiSettings,
    "coupon-consumer": CouponConsumerSettings,
    "campaign-api": CampaignApiSettings,
    "consent-consumer": ConsentConsumerSettings,
}
SETTINGS: Final[dict[str, type[EnvironmentSettings]]] = {
    **OURS,
    "demo": MembersSettings,
    "etl": EtlSettings,
    "migrations": MigrateSettings,
    "mongo-setup": MongoSetupSettings,
    "topics": TopicsSettings,
}
ON_POSTGRES: Final = ("reward-store", "coupon-api", "coupon-consumer")
WRITTEN: Final = {
    "demo": ["demo-journal:/var/lib/members"],
    "etl": ["etl-data:/var/lib/etl"],
    "salesforce": ["salesforce-data:/var/lib/salesforce"],
}
HARD_STOP_SECONDS: Final = 3.0
CONTAINERS_MOST: Final = {
    "reward-store": 3,
    "coupon-api": 3,
    "coupon-consumer": 4,
    "campaign-api": 3,
    "consent-consumer": 3,
}
"""Two replicas of each HTTP service and one that replaces; three consumers of coupons, two of consents, one more."""
OPERATORS: Final = 26
"""A command of the consumer (its pool is 10), the migrations' 2, the demo's 4, and 10 that cancel statements."""


def every_service(*names: str) -> pytest.MarkDecorator:
    """Run a test for each of the services."""
    return pytest.mark.parametrize("name", names or sorted(SERVICES))


def seconds(text: str) -> float:
    """Return the seconds of a duration such as `35s`."""
    match = re.fullmatch(r"(\d+)s", text)
    assert match is not None, text
    return float(match[1])


def test_the_file_is_for_the_current_compose_specification() -> None:
    """There is no `version`, which compose warns of."""
    assert "version" not in COMPOSE
    assert COMPOSE["name"] == "loyalty-platform"


def _volumes(name: str) -> list[str]:
    """Return the named volumes of a service."""
    return [volume for volume in SERVICES[name].get("volumes", []) if isinstance(volume, str)]


def test_the_jobs_are_the_ones_that_end() -> None:
    """What must be there before a service starts is made by a job; `up --wait` counts it as done when it has ended."""
    assert {"secrets", "migrations", "topics", "mongo-setup"} == JOBS
    awaited = {
        dependency
        for service in SERVICES.values()
        for dependency, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    assert awaited == JOBS


@every_service()
def test_images_are_pinned(name: str) -> None:
    """Each image has a tag that is not `latest`; ours are built here, each by one service."""
    image = SERVICES[name]["image"]
    if "build" in SERVICES[name]:
        assert image == f"loyalty-platform/{SERVICES[name]['build']['target']}:${{SERVICES_TAG:-local}}"
    assert re.search(r":(\d[\w.-]*|\$\{SERVICES_TAG:-local\})$", image)


@every_service()
def test_ports_are_published_on_loopback_alone(name: str) -> None:
    """Each published port begins with 127.0.0.1 and can be set, so that two stacks can stand side by side."""
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-[\d-]+\}:\d+", port)


def test_no_two_published_ranges_overlap() -> None:
    """With nothing set, each container finds a port in its own range, a third replica too."""
    taken: list[int] = []
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            first, _, last = re.findall(r":-([\d-]+)\}", port)[0].partition("-")
            numbers = range(int(first), int(last or first) + 1)
            assert len(numbers) >= CONTAINERS_MOST.get(name, 1)
            taken += numbers
    assert len(taken) == len(set(taken))


@every_service(*LASTING)
def test_what_runs_on_has_health_and_grace(name: str) -> None:
    """Each lasting container has a health check with a start period, a policy for its end, and time to stop."""
    service = SERVICES[name]
    assert seconds(service["healthcheck"]["start_period"]) >= 60
    assert service["restart"] == ("no" if name == "demo" else "unless-stopped")
    assert seconds(service["stop_grace_period"]) > 30
    assert "start_interval" not in service["healthcheck"]


@every_service()
def test_every_container_is_bounded(name: str) -> None:
    """Memory has a limit, logs rotate, and no privileges are kept or gained."""
    service = SERVICES[name]
    assert re.fullmatch(r"\d+m", service["mem_limit"])
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_beside_each_memory_limit_stands_what_was_measured() -> None:
    """A limit is at least 1.5 times the most that was seen, and the figure can be read where the limit is."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    limits = re.findall(r"mem_limit: (\d+)m(?: # (\d+) MiB)?", text)
    assert len(limits) == len(LASTING) + len(LOADS) + 1
    assert all(float(limit) >= 1.5 * float(measured) for limit, measured in limits)


@every_service(*(name for name, service in SERVICES.items() if "SERVICES_TAG" in service["image"]))
def test_containers_of_our_images_write_nowhere_but_to_one_tmpfs(name: str) -> None:
    """The root is read-only, and so are secrets; at most one volume is written: a journal, a log, a load's rejects."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert len(service["tmpfs"]) == 1
    writable = [volume for volume in _volumes(name) if not volume.endswith(":ro")]
    if name != "secrets":
        assert writable == WRITTEN.get(name, [])


@every_service()
def test_no_secret_is_in_the_environment(name: str) -> None:
    """Wherever a variable speaks of a secret, its value is the path of a file, and the reader mounts that file."""
    service = SERVICES[name]
    for variable, value in service.get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN", variable):
            assert variable.endswith("_FILE")
            assert Path(value).parent == Path("/run/secrets")
            assert Path(value).name in READERS[name]
            assert f"{name}-secrets:/run/secrets:ro" in service["volumes"]


def test_every_reader_mounts_its_own_secrets_and_the_job_makes_them_all() -> None:
    """One volume a reader, and no volume without one."""
    mounted = {name: [volume for volume in _volumes(name) if "-secrets:" in volume] for name in SERVICES}
    assert mounted.pop("secrets") == [f"{reader}-secrets:/secrets/{reader}" for reader in READERS]
    assert {name: volumes for name, volumes in mounted.items() if volumes} == {
        reader: [f"{reader}-secrets:/run/secrets:ro"] for reader in READERS
    }


@every_service(*SETTINGS)
def test_each_variable_is_a_setting_of_the_process(name: str) -> None:
    """A variable that no setting knows would end the process as mistyped; whoever needs one without default gets it."""
    settings = SETTINGS[name]
    prefix = str(settings.model_config["env_prefix"])
    environment = SERVICES[name]["environment"]
    sections = {variable.removeprefix(prefix).split("__")[0].lower() for variable in environment}
    needed = {field for field, info in settings.model_fields.items() if info.is_required()}
    assert needed <= sections <= settings.model_fields.keys()


@every_service(*OURS)
def test_docker_waits_longer_than_the_process_takes_for_its_stop(name: str) -> None:
    """The grace of the container is that of the process and its hard stop, and more."""
    settings = OURS[name]
    variable = f"{settings.model_config['env_prefix']}GRACE_SECONDS"
    grace = float(SERVICES[name]["environment"].get(variable, settings.model_fields["grace_seconds"].default))
    assert seconds(SERVICES[name]["stop_grace_period"]) > grace + HARD_STOP_SECONDS


def test_a_load_is_left_out_by_up_and_sees_an_operators_files_without_a_right_to_change_them() -> None:
    """It is in a profile, is found at no port, ends for good, and mounts a directory that is there, read-only."""
    load = SERVICES["etl"]
    assert frozenset({"etl"}) == LOADS
    assert load["profiles"] == ["etl"]
    assert load["restart"] == "no"
    assert "ports" not in load
    (files,) = [volume for volume in load["volumes"] if not isinstance(volume, str)]
    assert files["read_only"] is True
    assert files["bind"] == {"create_host_path": False}
    assert seconds(load["stop_grace_period"]) > EtlSettings.model_fields["grace_seconds"].default + HARD_STOP_SECONDS


def test_the_stand_in_of_salesforce_takes_its_command_line_and_knows_the_consumer(tmp_path: Path) -> None:
    """Its secrets are files that it mounts, its port is the published one, and the consumer comes under the same id."""
    for secret in READERS["salesforce"]:
        (tmp_path / secret).write_text(f"the content of {secret}")
    command = [argument.replace("/run/secrets", str(tmp_path)) for argument in SERVICES["salesforce"]["command"]]
    assert command[0] == "sandbox.salesforce"
    settings = read_arguments(command[1:])
    consumer = SERVICES["consent-consumer"]["environment"]
    assert settings.app.client_id == consumer["CONSENT_CONSUMER_SALESFORCE__CLIENT_ID"]
    assert consumer["CONSENT_CONSUMER_SALESFORCE__URL"] == f"http://salesforce:{settings.port}"
    assert SERVICES["salesforce"]["ports"][0].endswith(f":{settings.port}")
    assert settings.control_secret == (tmp_path / "salesforce-control-secret").read_text()
    assert settings.app.client_secret == (tmp_path / "salesforce-client-secret").read_text()


def test_all_pools_together_fit_into_the_server() -> None:
    """With every pool full, one more of each HTTP service, four consumers and a load, operators still get in."""
    pools = sum(
        count
        * int(
            SERVICES[name]["environment"].get(
                f"{OURS[name].model_config['env_prefix']}POSTGRES__POOL_MAX",
                PostgresSettings.model_fields["pool_max"].default,
            )
        )
        for name, count in CONTAINERS_MOST.items()
        if name in ON_POSTGRES
    )
    most = int(re.findall(r"max_connections=(\d+)", " ".join(SERVICES["postgres"]["command"]))[0])
    reserved_for_superusers = 3
    pools += LoadOptions(files=()).workers + 2
    assert pools + OPERATORS <= most - reserved_for_superusers


def test_whoever_calls_stops_before_whoever_is_called() -> None:
    """Compose stops in the reverse order of the dependencies: the traffic, then the callers, then what they call."""
    needs = {name: set(service.get("depends_on", {})) for name, service in SERVICES.items()}
    assert needs["demo"] >= OURS.keys()
    assert "coupon-api" in needs["reward-store"]
    assert "salesforce" in needs["consent-consumer"]
    for name in OURS:
        assert _reaches(needs, name, "postgres" if name in ON_POSTGRES else "mongo")
    assert _reaches(needs, "reward-store", "kafka")
    assert _reaches(needs, "coupon-consumer", "kafka")


def _reaches(needs: dict[str, set[str]], start: str, end: str) -> bool:
    return start == end or any(_reaches(needs, name, end) for name in needs[start])
