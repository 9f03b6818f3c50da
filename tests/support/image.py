"""Images built from a tree with things in it that are nobody's business, and containers of them."""

import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
DOCKERFILE: Final = "deploy/docker/Dockerfile"
BASE: Final = "python:3.13-slim-bookworm"
PACKAGES: Final = ("patterns", "runtime", "loyalty", "services", "etl", "deploy", "sandbox")
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


def bait_tree(tree: Path) -> None:
    """Copy what is built from into a directory, and lay baits among it."""
    for name in (*PACKAGES, "requirements"):
        shutil.copytree(ROOT / name, tree / name)
    shutil.copy(ROOT / ".dockerignore", tree)
    for name in BAITED:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"# {BAIT}\n")


@contextmanager
def built(tree: Path, target: str, *, buildkit: bool = True) -> Iterator[str]:
    """Build an image from a tree under a name of its own, and remove it and its builder stage at the end."""
    name = f"lp-image-test-{secrets.token_hex(4)}"
    variant = {"DOCKER_BUILDKIT": "1" if buildkit else "0"}
    build = ["build", "--file", str(tree / DOCKERFILE)]
    result = docker(*build, "--target", target, "--tag", name, str(tree), timeout_seconds=500, **variant)
    if not buildkit and "BuildKit is enabled" in result.stderr:
        pytest.skip("this engine builds with BuildKit alone")
    assert result.returncode == 0, result.stderr[-4_000:]
    try:
        yield name
    finally:
        docker("image", "rm", name)
        if not buildkit:  # it leaves the other stage behind without a name; from its cache it gets one
            docker(*build, "--target", f"{target}-builder", "--tag", name, str(tree), timeout_seconds=500, **variant)
            docker("image", "rm", name)


@contextmanager
def running(image: str, *command: str, mounts: Sequence[str] = (), **environment: str) -> Iterator[str]:
    """Run a container as compose does, read-only and with one tmpfs, and remove it at the end."""
    variables = [f"--env={name}={value}" for name, value in environment.items()]
    contained = ["--read-only", "--tmpfs=/tmp:size=16m", "--cap-drop=ALL", "--security-opt=no-new-privileges:true"]
    container = answer("run", "--detach", "--network=none", *contained, *mounts, *variables, image, *command)
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
