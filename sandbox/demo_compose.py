"""The whole platform in containers: it comes up, has traffic, is disturbed in the middle, is audited, and goes down.

Disturbed by a rolling restart of each service, by Salesforce that fails in three ways, and by MongoDB's one node, which
steps down by force. A file of coupons is loaded meanwhile, its load stopped and gone on with.

    python -m sandbox.demo_compose [--seconds N] [--rate N]

The stack has a project name, ports and volumes of its own, and nothing of it is left. Ctrl-C, SIGTERM or the end of the
seconds: the traffic stops, the backlog drains, everything stops in order, and the audit has the last word:
`audit ok: ...` and status 0, or `audit FAILED: ...` and status 1. A second Ctrl-C leaves the audit out, status 130.
"""

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from patterns import ContextError, Shutdown
from sandbox.audit import Verdict
from sandbox.compose import ComposeSystem, bad_ends, open_compose
from sandbox.demo import INTERRUPTED, Demo, run_command
from sandbox.instance import Service
from sandbox.journal import Journal
from sandbox.screen import open_screen
from sandbox.seed import make_seed, plant
from sandbox.system import ROOT
from sandbox.world import CAMPAIGNS, CONSENTS

_PLACE = ROOT / ".sandbox" / "demo-compose"
_MEMBERS = 200
_POINTS = 4_000
_STOP_SECONDS = 240.0


async def _demo(place: Path, seconds: float | None, rate: float) -> int:
    shutdown = Shutdown(_STOP_SECONDS)
    with shutdown.listen():
        async with open_compose(f"loyalty-demo-{os.getpid()}") as system:
            verdict = await _run(system, place, shutdown, seconds, rate)
            print("removing the stack: docker compose down --volumes", flush=True)
    if verdict is None:
        return INTERRUPTED
    for line in verdict.lines():
        print(line)
    return 0 if verdict.is_ok else 1


async def _run(
    system: ComposeSystem, place: Path, shutdown: Shutdown, seconds: float | None, rate: float
) -> Verdict | None:
    """Bring the stack up, run the demo on it, and stop it; None where it was told to end without an audit."""
    print(f"docker compose --project-name {system.project} up --build --wait", flush=True)
    seed = make_seed(_MEMBERS, _POINTS)
    try:
        await shutdown.ctx.run(system.up())
    except ContextError:
        print("stopped before the traffic began", file=sys.stderr)
        return None
    await plant(seed, system.rewards_url)
    for line in _places(system):
        print(line)
    with Journal(place) as journal:
        journal.seeded(seed)
        with open_screen() as screen:
            demo = Demo(system, journal, seed, screen, rate=rate, restarted=tuple(Service))
            result = await demo.run(shutdown, seconds)
        if result.left_over:
            print(f"stopped at once, without an audit: {'; '.join(result.left_over)}", file=sys.stderr)
            return None
        verdict = await demo.verdict()
    ends = [f"{one.name} ended with status {one.status}" for one in bad_ends(await system.stop_all())]
    return dataclasses.replace(verdict, differences=(*verdict.differences, *ends))


def _places(system: ComposeSystem) -> Iterator[str]:
    for instance in system.instances:
        api = f"{instance.base_url}/docs   " if instance.base_url else ""
        yield f"  {instance.name}   {api}{instance.admin_url}/metrics"
    yield f"  Kafka   {system.bootstrap}, topic {system.topic}"
    yield f"  MongoDB   {system.mongo_address}, databases {CAMPAIGNS} and {CONSENTS}"
    yield f"  Salesforce, as its stand-in shows it   {system.salesforce_url}"


def main() -> int:
    """Run the demo and return its exit status."""
    return run_command("The whole flow in containers, audited at the end.", _demo, rate=20.0, place=_PLACE)


if __name__ == "__main__":
    sys.exit(main())
