"""The list of links to a running platform; of the one that compose runs: `python -m sandbox.links`, or `make links`.

Nothing but the standard library is imported: whoever runs the platform in containers needs no environment for this.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GUEST = "m-guest"
"""Whoever tries the running platform by hand: no member of the traffic, and left aside by the audit."""
COMPOSE_TOKEN = "docker compose exec -T coupon-api python -m sandbox.token --secret-file /run/secrets/token-secret"  # noqa: S105 - a command
_ANSWER_SECONDS = 60
_HTTP_PORT = 8080
_ADMIN_PORT = 9090
_POSTGRES_PORT = 5432
_KAFKA_HOST_PORT = 29092
_MONGO_PORT = 27017
_SALESFORCE_PORT = 8099
_MONGO_PASSWORD = "docker compose exec mongo cat /run/secrets/mongo-root-password"  # noqa: S105 - a command
_CONTROL_SECRET = "docker compose exec salesforce cat /run/secrets/salesforce-control-secret"  # noqa: S105 - a command


class NotRunningError(RuntimeError):
    """There is nothing to link to; the message says why."""


@dataclass(frozen=True, slots=True)
class Links:
    """Where everything of a running platform is.

    Attributes:
        bases: of each service that serves members, and of each of its addresses, a name and the URL.
        instances: of each instance its name and the URL of its admin port.
        rewards: the first database, as something to connect to.
        coupons: the second one.
        kafka: brokers and topic.
        mongo: MongoDB, as something to connect to; None where there is none.
        salesforce: the page of the Salesforce sandbox; None where there is none.
        logs: where they are.
        token: what opens the guest's door.
        token_command: prints one; with another MEMBER or member in it, for another.
    """

    bases: Sequence[tuple[str, str]]
    instances: Sequence[tuple[str, str]]
    rewards: str
    coupons: str
    kafka: str
    mongo: str | None
    salesforce: str | None
    logs: str
    token: str
    token_command: str

    def lines(self) -> Iterator[str]:
        """Yield the one list of links; the last line works as printed."""
        yield "try it:"
        for name, url in self.bases:
            yield f"  {name} API docs   {url}/docs"
        for name, url in self.instances:
            yield f"  {name} metrics   {url}/metrics   ({url}/readyz)"
        yield f"  rewards   {self.rewards}"
        yield f"  coupons   {self.coupons}"
        yield f"  Kafka     {self.kafka}"
        if self.mongo is not None:
            yield f"  MongoDB   {self.mongo}"
        if self.salesforce is not None:
            yield f"  Salesforce's stand-in, its records and its faults   {self.salesforce}"
        yield f"  logs      {self.logs}"
        yield f"  a token for {GUEST}, who is there for you: the audit does not look at what they do: {self.token}"
        yield f'  curl -H "Authorization: Bearer $({self.token_command})" {self.bases[0][1]}/v1/members/{GUEST}'


def compose_links(containers: Sequence[Mapping[str, Any]], token: str) -> Links:
    """Make the list from what `docker compose ps --format json` tells of the running containers.

    Raises:
        NotRunningError: a container that the list speaks of does not run.
    """
    addresses = {
        (str(container["Name"]), str(container["Service"]), int(port["TargetPort"])): int(port["PublishedPort"])
        for container in containers
        for port in container.get("Publishers") or ()
        if port["PublishedPort"]
    }

    def found(target: int, *services: str) -> list[tuple[str, str]]:
        return [
            (name, f"127.0.0.1:{published}")
            for wanted in services
            for (name, service, port), published in sorted(addresses.items())
            if (service, port) == (wanted, target)
        ]

    bases = found(_HTTP_PORT, "reward-store", "coupon-api", "campaign-api")
    admins = found(_ADMIN_PORT, "reward-store", "coupon-api", "coupon-consumer", "campaign-api", "consent-consumer")
    postgres, kafka = found(_POSTGRES_PORT, "postgres"), found(_KAFKA_HOST_PORT, "kafka")
    mongo, salesforce = found(_MONGO_PORT, "mongo"), found(_SALESFORCE_PORT, "salesforce")
    if not (found(_HTTP_PORT, "reward-store") and postgres and kafka and mongo and salesforce):
        raise NotRunningError("the stack is not up: docker compose up --build --wait")

    def database(name: str) -> str:
        return f"postgresql://postgres@{postgres[0][1]}/{name}   (docker compose exec postgres psql -U postgres {name})"

    return Links(
        bases=[(name, f"http://{address}") for name, address in bases],
        instances=[(name, f"http://{address}") for name, address in admins],
        rewards=database("rewards"),
        coupons=database("coupons"),
        kafka=f"{kafka[0][1]}, topic coupon-events",
        mongo=f"mongodb://root@{mongo[0][1]}/?directConnection=true   (password: {_MONGO_PASSWORD})",
        salesforce=f"http://{salesforce[0][1]}   (secret: {_CONTROL_SECRET})",
        logs="docker compose logs --follow",
        token=token,
        token_command=f"{COMPOSE_TOKEN} --member {GUEST}",
    )


def ask_compose(command: str, *arguments: str) -> str:
    """Run a command that begins with `docker compose` in the project's directory and return what it prints.

    Raises:
        NotRunningError: it failed, took too long, or there is no such program; the message is its last line.
    """
    try:
        result = subprocess.run(
            [*command.split(), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotRunningError(str(error)) from error
    if result.returncode != 0:
        raise NotRunningError((result.stderr.strip().splitlines() or [f"status {result.returncode}"])[-1])
    return result.stdout.strip()


def _containers() -> list[dict[str, Any]]:
    """Return the running containers; compose prints one list, or since 2.21 one object a line."""
    parts = [json.loads(line) for line in ask_compose("docker compose ps --format json").splitlines() if line]
    return [container for part in parts for container in (part if isinstance(part, list) else [part])]


def main() -> int:
    """Print the links of the stack that compose runs and return 0, or say what is missing and return 1."""
    try:
        containers = _containers()
        token = ask_compose(COMPOSE_TOKEN) if containers else ""
        lines = list(compose_links(containers, token).lines())
    except NotRunningError as error:
        print(f"no links: {error}", file=sys.stderr)
        return 1
    for line in lines:
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
