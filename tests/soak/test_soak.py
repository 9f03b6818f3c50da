"""The soak itself, for a short while, and what it says when it fails."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.servers import ServerError
from tests.soak.__main__ import main
from tests.soak.soak import Soak
from tests.support.fault_report import FaultReport
from tests.support.judgement import Judgement, Rule, judge

ROOT = Path(__file__).parents[2]
SEED = 1
MINUTE = 60.0


@pytest.mark.thorough
@pytest.mark.timeout(600)
def test_a_few_stops_end_with_ok() -> None:
    """The command replaces instances, audits, and says so in its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak", "--stops", "3"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stdout.splitlines()[-1]
    assert re.search(r"soak ok: 3 orderly stops, .*; \d+ requests, 0 failed; L1 ok", last), done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.fault("X8", "a minute of the soak: something hurt every 20 s")
async def test_a_minute_of_faults_breaks_no_promise(tmp_path: Path, fault_report: FaultReport) -> None:
    """Every rule is looked at, between the faults and in the end."""
    judgement, done = await Soak(tmp_path, SEED, 30.0, print).faults(MINUTE)
    fault_report.judge(judgement)
    fault_report.measure(done=done)
    assert set(judgement.differences) == set(Rule)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (judge(Rule.NOTHING_LOST, ["x was acknowledged and is nowhere"]), "soak FAILED: 3 stops; L1 FAILED, L2 -"),
        (ServerError("after 2 stops 1 requests have failed"), "soak FAILED: ServerError: after 2 stops 1 requests"),
        (TimeoutError(), "soak FAILED: TimeoutError"),
    ],
    ids=["a rule", "a request", "no end"],
)
def test_failure_has_the_last_word_and_the_status(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    found: Judgement | Exception,
    said: str,
) -> None:
    """What failed, the seed and the place of the logs are in the last line; the status is 1 and the logs are kept."""

    async def stops(_: Soak, count: int) -> tuple[Judgement, str]:
        if isinstance(found, Exception):
            raise found
        return found, f"{count} stops"

    monkeypatch.setattr(Soak, "stops", stops)
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(tmp_path / prefix))
    assert main(["--stops", "3", "--seed", "7"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert said in last
    assert last.endswith(f"seed 7, logs and books in {tmp_path / 'soak-'}")
