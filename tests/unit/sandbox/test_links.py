"""What is printed of a running platform."""

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.demo import links
from sandbox.instance import Service
from sandbox.links import ROOT, NotRunningError, compose_links
from sandbox.servers import KafkaServer, PostgresServer
from sandbox.system import System


class Unstarted(System):
    """A system on named servers of which nothing runs."""

    def base_url(self, service: Service) -> str:
        """Return an address where nobody listens."""
        return f"http://{service}"

    def token(self, subject: str, *, is_operator: bool = False, lifetime_seconds: int = 86_400) -> str:
        """Return a token that opens nothing."""
        return f"{subject}-{is_operator}-{lifetime_seconds}"


def test_links_to_a_named_server_hold_nobodys_password(tmp_path: Path) -> None:
    """The password of whoever named the server is on no line, wherever its URL has it; user, host and database are."""
    named = PostgresServer("postgresql://owner:hunter2@db.example:5433/postgres?sslmode=require&password=hunter3")
    system = Unstarted(tmp_path, named, KafkaServer("localhost:9092"))
    lines = list(links(system).lines())
    assert f"  rewards   postgresql://owner@db.example:5433/{system.rewards_database}" in lines
    assert f"  coupons   postgresql://owner@db.example:5433/{system.coupons_database}" in lines
    assert not [line for line in lines if "hunter" in line]


def container(service: str, number: int, **published: int) -> dict[str, object]:
    """Return what compose tells of a container that publishes ports, named like `p8080`."""
    ports = [{"URL": "127.0.0.1", "TargetPort": int(p[1:]), "PublishedPort": n} for p, n in published.items()]
    silent = {"URL": "", "TargetPort": 1, "PublishedPort": 0}
    return {"Name": f"lp-{service}-{number}", "Service": service, "Publishers": [*ports, silent]}


STACK: list[dict[str, object]] = [
    container("kafka", 1, p29092=30_000),
    container("postgres", 1, p5432=30_001),
    container("coupon-consumer", 1, p9090=30_002),
    container("coupon-api", 1, p8080=30_003, p9090=30_004),
    container("mongo", 1, p27017=30_009),
    container("salesforce", 1, p8099=30_010),
    container("campaign-api", 1, p8080=30_011, p9090=30_012),
    container("consent-consumer", 1, p9090=30_013),
    container("reward-store", 2, p8080=30_005, p9090=30_006),
    container("reward-store", 1, p8080=30_008, p9090=30_007),
    {"Name": "lp-demo-1", "Service": "demo", "Publishers": None},
]


def test_links_to_a_stack_name_each_replica_by_the_port_it_has_now() -> None:
    """Every container of a service has its own line, in order; databases, brokers and the token are there too."""
    links_found = compose_links(STACK, "a.b.c")
    assert links_found.bases == [
        ("lp-reward-store-1", "http://127.0.0.1:30008"),
        ("lp-reward-store-2", "http://127.0.0.1:30005"),
        ("lp-coupon-api-1", "http://127.0.0.1:30003"),
        ("lp-campaign-api-1", "http://127.0.0.1:30011"),
    ]
    assert [url.rpartition(":")[2] for _, url in links_found.instances] == [
        *("30007", "30006", "30004", "30002", "30012", "30013"),
    ]
    lines = "\n".join(links_found.lines())
    for part in (
        "postgresql://postgres@127.0.0.1:30001/coupons",
        "127.0.0.1:30000, topic coupon-events",
        "mongodb://root@127.0.0.1:30009/",
        "http://127.0.0.1:30010 ",
        "a.b.c",
    ):
        assert part in lines
    assert lines.endswith("http://127.0.0.1:30008/v1/members/m-guest")


@pytest.mark.parametrize("missing", ["kafka", "postgres", "mongo", "salesforce", "reward-store"])
def test_links_to_half_a_stack_are_refused(missing: str) -> None:
    """Nobody gets a list with holes in it."""
    with pytest.raises(NotRunningError, match="docker compose up"):
        compose_links([part for part in STACK if part["Service"] != missing], "a.b.c")


def test_links_need_nothing_but_the_standard_library() -> None:
    """`make links` is for machines that have Docker and any Python, and no environment of the project."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import sandbox.links"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
