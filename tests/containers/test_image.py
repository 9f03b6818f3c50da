"""The image of the services: what is in it, what is not, and how its process behaves."""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

pytestmark = pytest.mark.timeout(600)

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = "deploy/docker/Dockerfile"
BASE: Final = "python:3.13-slim-bookworm"
PACKAGES: Final = ("patterns", "runtime", "loyalty", "services", "deploy", "sandbox")
ABOVE_BASE_MB_MAX: Final = 150
BAIT: Final = "bait-of-the-image-test"
BAITED: Final = (
    ".env",
    ".git/config",
    ".venv/lib/module.py",
    "id_ed25519",
    "secrets/token-secret",
    "services/reward_store/.env",
    "deploy/docker/server.key",
    "sandbox/members.csv",
    "patterns/__pycache__/stale.pyc",
    "tests/test_private.py",
    "requirements/dev.txt",
)
"""Files that a work tree may hold and an image may not, in the places where they would lie."""
PAGE: Final = tuple(f"sandbox/salesforce/page.{kind}" for kind in ("css", "html", "js"))
"""What the image holds besides modules."""
WAITING: Final = {
    "COUPON_CONSUMER_POSTGRES__DATABASE": "coupons",
    "COUPON_CONSUMER_POSTGRES__USER": "coupon_consumer",
    "COUPON_CONSUMER_KAFKA__BOOTSTRAP": "127.0.0.1:9",
    "COUPON_CONSUMER_STARTUP_SECONDS": "600",
}
"""Settings of a consumer that waits for servers which are not there."""


def docker(*arguments: str, timeout_seconds: float = 60, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run one docker command and return how it ended."""
    return subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_seconds,
        env={**os.environ, **environment},
    )


def answer(*arguments: str) -> str:
    """Return what a docker command that must succeed prints."""
    result = docker(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def baited_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what is built from, and lay baits among it."""
    tree = tmp_path_factory.mktemp("tree")
    for name in (*PACKAGES, "requirements"):
        shutil.copytree(ROOT / name, tree / name)
    shutil.copy(ROOT / ".dockerignore", tree)
    for name in BAITED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"# {BAIT}\n")
    return tree


@contextmanager
def built(tree: Path, *, buildkit: bool) -> Iterator[str]:
    """Build the image from a tree under a name of its own, and remove it and its builder stage at the end."""
    name = f"lp-image-test-{secrets.token_hex(4)}"
    variant = {"DOCKER_BUILDKIT": "1" if buildkit else "0"}
    build = ["build", "--file", str(tree / DOCKERFILE)]
    result = docker(*build, "--target", "services", "--tag", name, str(tree), timeout_seconds=500, **variant)
    if not buildkit and "BuildKit is enabled" in result.stderr:
        pytest.skip("this engine builds with BuildKit alone")
    assert result.returncode == 0, result.stderr[-4_000:]
    try:
        yield name
    finally:
        docker("image", "rm", name)
        if not buildkit:  # it leaves the other stage behind without a name; from its cache it gets one
            docker(*build, "--target", "services-builder", "--tag", name, str(tree), timeout_seconds=500, **variant)
            docker("image", "rm", name)


@pytest.fixture(scope="module")
def image(baited_tree: Path) -> Iterator[str]:
    """Build the image once for all tests, from a tree with things in it that are nobody's business."""
    with built(baited_tree, buildkit=True) as name:
        yield name


@contextmanager
def running(image: str, *command: str, **environment: str) -> Iterator[str]:
    """Run a container as compose does, read-only and with one tmpfs, and remove it at the end."""
    variables = [f"--env={name}={value}" for name, value in environment.items()]
    contained = ["--read-only", "--tmpfs=/tmp:size=16m", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"]
    container = answer("run", "--detach", "--network=none", *contained, *variables, image, *command)
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def python(image: str, code: str) -> list[Any]:
    """Run a few lines in the image, as its user, and return the JSON that they print."""
    contained = ["--rm", "--network=none", "--read-only", "--tmpfs=/tmp", "--entrypoint=python"]
    printed: list[Any] = json.loads(answer("run", *contained, image, "-c", code))
    return printed


def wait_for_log(container: str, words: str) -> None:
    """Wait until a container's log holds the words, at most a minute."""
    give_up_at = time.monotonic() + 60
    while words not in (log := docker("logs", container)).stdout + log.stderr:
        assert time.monotonic() < give_up_at, log.stdout + log.stderr
        time.sleep(0.1)


def test_the_image_is_small(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Above its base it takes at most 150 MB; the test prints how many."""
    size, base = (int(answer("image", "inspect", "--format={{.Size}}", name)) for name in (image, BASE))
    above = (size - base) / 1e6
    with capsys.disabled():
        print(f"\nimage: {size / 1e6:.1f} MB, {above:.1f} MB above {BASE}")  # noqa: T201 - a figure for whoever runs it
    assert above <= ABOVE_BASE_MB_MAX


def test_nothing_is_in_the_image_but_the_packages(baited_tree: Path, image: str) -> None:
    """Every module of the packages is there, and the one page; no other file of ours is, and no bait, by content."""
    files, baits = python(
        image,
        f"""
import json, pathlib
roots = [pathlib.Path(name) for name in ("/app", "/home", "/opt", "/root", "/srv", "/source", "/requirements", "/var")]
files, baits = [], []
for root in roots:
    for path in root.rglob("*") if root.exists() else ():
        try:
            if path.is_symlink() or not path.is_file():
                continue
            if b"{BAIT}" in path.read_bytes():
                baits.append(str(path))
        except PermissionError:
            continue
        if root.name == "app" and ".venv" not in path.parts and path.suffix != ".pyc":
            files.append(str(path.relative_to(root)))
print(json.dumps([sorted(files), baits]))
""",
    )
    assert baits == []
    modules = [path.relative_to(baited_tree) for package in PACKAGES for path in (baited_tree / package).rglob("*.py")]
    assert files == sorted([*map(str, modules), *PAGE])


def test_no_build_tool_and_no_cache_is_left(image: str) -> None:
    """There is no compiler and no make, the environment has no pip of its own, and nothing of a download stays."""
    found = python(
        image,
        """
import json, pathlib, shutil
tools = [name for name in ("cc", "gcc", "clang", "make", "ld", "cargo", "uv") if shutil.which(name)]
pips = [str(path) for path in pathlib.Path("/app/.venv").rglob("pip*") if path.name in ("pip", "pip3")]
caches = [str(path) for path in pathlib.Path("/").glob("*/.cache/*")]
print(json.dumps([tools, pips, caches]))
""",
    )
    assert found == [[], [], []]


def test_everything_is_compiled(image: str) -> None:
    """A container with a read-only root cannot compile what it loads, and would do so anew at each start."""
    missing = python(
        image,
        """
import importlib.util, json, pathlib
sources = [path for path in pathlib.Path("/app").rglob("*.py") if "/bin/" not in str(path)]
missing = [str(p) for p in sources if not pathlib.Path(importlib.util.cache_from_source(str(p))).exists()]
print(json.dumps([len(sources) > 1000, missing]))
""",
    )
    assert missing == [True, []]


def test_the_process_is_nobody_special(image: str) -> None:
    """It runs as 10001, can change nothing of the application, and can write to /tmp and to the two volumes' places."""
    code = """
import json, os, pathlib
places = ["/app", "/app/services", "/app/.venv", "/etc", "/tmp", "/var/lib/members", "/var/lib/salesforce"]
print(json.dumps([os.getuid(), os.getgid(), [place for place in places if os.access(place, os.W_OK)]]))
"""
    assert python(image, code) == [10001, 10001, ["/tmp"]]  # noqa: S108 - a name to compare, nothing is written
    writable = answer("run", "--rm", "--network=none", "--entrypoint=python", image, "-c", code)
    assert json.loads(writable)[2] == ["/tmp", "/var/lib/members", "/var/lib/salesforce"]  # noqa: S108 - as above


def test_nothing_secret_is_in_the_image_s_configuration(image: str) -> None:
    """Beyond what the base sets, the environment has the path and two switches of Python."""
    set_by = [set(json.loads(answer("image", "inspect", "--format={{json .Config.Env}}", n))) for n in (image, BASE)]
    added = {variable.partition("=")[0] for variable in set_by[0] - set_by[1]}
    assert added == {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}


def test_sigterm_reaches_process_1_and_ends_it_with_status_0(image: str) -> None:
    """The service itself is process 1; told to stop while it waits for its servers, it stops in order."""
    with running(image, "services.coupon_consumer", **WAITING) as container:
        wait_for_log(container, "Admin server listening")
        assert answer("exec", container, "python", "-c", "print(open('/proc/1/cmdline').read().split(chr(0))[:3])") == (
            "['python', '-m', 'services.coupon_consumer']"
        )
        answer("stop", "--time=40", container)
        assert answer("inspect", "--format={{.State.ExitCode}}", container) == "0"


def test_sigterm_in_the_first_moment_is_kept(image: str) -> None:
    """A stop that comes before Python has a handler is not lost: the service stops in order as soon as it can."""
    with running(image, "services.coupon_consumer", **WAITING) as container:
        answer("stop", "--time=40", container)
        assert answer("inspect", "--format={{.State.ExitCode}}", container) == "0"


def test_bad_settings_end_the_container_with_status_78(image: str) -> None:
    """A supervisor can tell a container that will never run from one that may be tried again."""
    with running(image, "services.coupon_consumer", COUPON_CONSUMER_KAFKA__BOOTSRTAP="kafka:9092") as container:
        assert answer("wait", container) == "78"


def test_the_health_check_tells_waiting_from_dead(image: str) -> None:
    """Docker's own check says unready while the servers are missing; the same script sees that the process lives."""
    with running(image, "services.coupon_consumer", **WAITING) as container:
        wait_for_log(container, "Admin server listening")
        check = json.loads(answer("inspect", "--format={{json .Config.Healthcheck.Test}}", container))
        assert check[0] == "CMD"
        assert docker("exec", container, *check[1:]).returncode == 1
        assert docker("exec", container, *check[1:], "/livez").returncode == 0


def test_the_image_can_be_built_without_buildkit(baited_tree: Path, image: str) -> None:
    """The older builder, which knows no cache mounts and reads `.dockerignore` by itself, makes the same files."""
    code = """
import json, pathlib
files = [path for path in pathlib.Path("/app").rglob("*") if path.is_file() and path.suffix != ".pyc"]
print(json.dumps(sorted([str(path), path.stat().st_mode, path.stat().st_size] for path in files)))
"""
    with built(baited_tree, buildkit=False) as other:
        assert python(other, code) == python(image, code)
