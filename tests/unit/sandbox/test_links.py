"""What the demo prints of the servers it runs on."""

from pathlib import Path

from sandbox.demo import links
from sandbox.instance import Service
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
    lines = list(links(system))
    assert f"  rewards   postgresql://owner@db.example:5433/{system.rewards_database}" in lines
    assert f"  coupons   postgresql://owner@db.example:5433/{system.coupons_database}" in lines
    assert not [line for line in lines if "hunter" in line]
