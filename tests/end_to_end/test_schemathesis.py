"""All APIs under generated requests, good and bad, through real processes and real servers."""

import asyncio
import sys
from pathlib import Path

import pytest

from sandbox.crowd import served
from sandbox.instance import Service
from sandbox.seed import make_seed, plant
from sandbox.system import open_system

SEED = 20_260_101
EXAMPLES = 40
# A change without If-Match is refused as RFC 6585 says, by a status that the tool does not count as a refusal.
CONFIG = """
[checks.missing_required_header]
expected-statuses = [400, 401, 403, 406, 415, 422, 428]
"""
SECONDS = 300


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("service", [one for one in Service if one.serves_members])
@pytest.mark.parametrize("is_operator", [False, True], ids=["member", "operator"])
async def test_generated_requests_get_the_answers_that_the_document_declares(
    tmp_path: Path, service: Service, is_operator: bool
) -> None:
    """No generated request gets a 5xx, or an answer that the service's own OpenAPI document does not have."""
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    async with open_system(tmp_path) as system:
        await plant(make_seed(10, 1_000), system.rewards_url)
        await asyncio.gather(*(system.start(one) for one in served(system)))
        token = system.token("op-1" if is_operator else "m-1", is_operator=is_operator)
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{system.base_url(service)}/openapi.json",
            "--checks=all",
            # A cursor that was made up, a key that was used before, an end before its beginning: right by the
            # schema, and refused all the same.
            "--exclude-checks=positive_data_acceptance",
            # Times have a pattern besides their format; the generator makes them by the one and filters by the other.
            "--suppress-health-check=filter_too_much",
            f"--header=Authorization: Bearer {token}",
            f"--max-examples={EXAMPLES}",
            f"--seed={SEED}",
            "--no-color",
            "--workers=1",
            "--request-timeout=10",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
    assert process.returncode == 0, output.decode()
