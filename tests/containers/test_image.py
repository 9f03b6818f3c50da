"""The two images: what is in them, what is not, and how their processes behave."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from sandbox.coupon_file import CouponFile
from tests.support.image import BAIT, BASE, answer, bait_tree, built, docker, python, running, wait_for_log

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Content:
    """What an image should be.

    Attributes:
        packages: those of ours that are in it.
        others: what is in it of them besides modules.
        libraries: some that it has for itself alone.
        variables: what its environment has beyond the base's.
        above_base_mb: how many megabytes it may take above the base.
    """

    packages: frozenset[str]
    libraries: frozenset[str]
    variables: frozenset[str]
    above_base_mb: int
    others: tuple[str, ...] = ()


_PYTHON: Final = frozenset({"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"})
CONTENTS: Final = {
    "services": Content(
        packages=frozenset({"patterns", "runtime", "loyalty", "services", "deploy", "sandbox"}),
        libraries=frozenset({"fastapi", "uvicorn", "confluent_kafka", "pymongo", "sqlalchemy"}),
        variables=_PYTHON,
        above_base_mb=150,
        others=tuple(f"sandbox/salesforce/page.{kind}" for kind in ("css", "html", "js")),
    ),
    "etl": Content(
        packages=frozenset({"patterns", "runtime", "loyalty", "etl"}),
        libraries=frozenset({"numpy", "pyarrow", "pgpq", "typer"}),
        variables=_PYTHON | {"PYTHONPATH", "PYTHONSAFEPATH"},
        above_base_mb=350,
    ),
}
WAITING: Final = {
    "COUPON_CONSUMER_POSTGRES__DATABASE": "coupons",
    "COUPON_CONSUMER_POSTGRES__USER": "coupon_consumer",
    "COUPON_CONSUMER_KAFKA__BOOTSTRAP": "127.0.0.1:9",
    "COUPON_CONSUMER_STARTUP_SECONDS": "600",
}
"""Settings of a consumer that waits for servers which are not there."""
LOAD_WAITING: Final = {
    "ETL_POSTGRES__DATABASE": "coupons",
    "ETL_POSTGRES__USER": "etl",
    "ETL_STARTUP_SECONDS": "600",
}
"""Settings of a load that does so."""


@pytest.fixture(scope="module")
def baited_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built from, and baits among it."""
    tree = tmp_path_factory.mktemp("tree")
    bait_tree(tree)
    return tree


@pytest.fixture(scope="module")
def images(baited_tree: Path) -> Iterator[dict[str, str]]:
    """Build each image once for all tests, from a tree with things in it that are nobody's business."""
    with ExitStack() as stack:
        yield {target: stack.enter_context(built(baited_tree, target)) for target in CONTENTS}


@pytest.fixture
def services(images: dict[str, str]) -> str:
    """The name of the services' image."""
    return images["services"]


@pytest.fixture
def etl(images: dict[str, str]) -> str:
    """The name of the load's image."""
    return images["etl"]


of_each = pytest.mark.parametrize("target", CONTENTS)


@of_each
def test_the_image_is_small(images: dict[str, str], target: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Above its base it takes no more than it should; the test prints how much."""
    size, base = (int(answer("image", "inspect", "--format={{.Size}}", name)) for name in (images[target], BASE))
    above = (size - base) / 1e6
    with capsys.disabled():
        print(f"\n{target}: {size / 1e6:.1f} MB, {above:.1f} above {BASE}")  # noqa: T201 - a figure for whoever runs it
    assert above <= CONTENTS[target].above_base_mb


@of_each
def test_each_image_has_the_libraries_of_its_own_and_none_of_the_other_s(images: dict[str, str], target: str) -> None:
    """What reads files fast is in the one, what serves and consumes in the other."""
    names = sorted(frozenset[str]().union(*(content.libraries for content in CONTENTS.values())))
    code = f"""
import importlib.util, json
print(json.dumps([name for name in {names} if importlib.util.find_spec(name)]))
"""
    assert set(python(images[target], code)) == CONTENTS[target].libraries


@of_each
def test_nothing_is_in_the_image_but_the_packages(baited_tree: Path, images: dict[str, str], target: str) -> None:
    """Every module of the packages is there, and the one page; no other file of ours is, and no bait, by content."""
    files, baits = python(
        images[target],
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
    content = CONTENTS[target]
    found = [path for package in content.packages for path in (baited_tree / package).rglob("*.py")]
    assert files == sorted([*(str(path.relative_to(baited_tree)) for path in found), *content.others])


@of_each
def test_no_build_tool_and_no_cache_is_left(images: dict[str, str], target: str) -> None:
    """There is no compiler and no make, the environment has no pip of its own, and nothing of a download stays."""
    found = python(
        images[target],
        """
import json, pathlib, shutil
tools = [name for name in ("cc", "gcc", "clang", "make", "ld", "cargo", "uv") if shutil.which(name)]
pips = [str(path) for path in pathlib.Path("/app/.venv").rglob("pip*") if path.name in ("pip", "pip3")]
caches = [str(path) for path in pathlib.Path("/").glob("*/.cache/*")]
print(json.dumps([tools, pips, caches]))
""",
    )
    assert found == [[], [], []]


@of_each
def test_everything_is_compiled(images: dict[str, str], target: str) -> None:
    """A container with a read-only root cannot compile what it loads, and would do so anew at each start."""
    missing = python(
        images[target],
        """
import importlib.util, json, pathlib
sources = [path for path in pathlib.Path("/app").rglob("*.py") if "/bin/" not in str(path)]
missing = [str(p) for p in sources if not pathlib.Path(importlib.util.cache_from_source(str(p))).exists()]
print(json.dumps([len(sources) > 1000, missing]))
""",
    )
    assert missing == [True, []]


def test_the_process_is_nobody_special(services: str) -> None:
    """It runs as 10001, can change nothing of the application, and can write to /tmp and to the two volumes' places."""
    code = """
import json, os, pathlib
places = ["/app", "/app/services", "/app/.venv", "/etc", "/tmp", "/var/lib/members", "/var/lib/salesforce"]
print(json.dumps([os.getuid(), os.getgid(), [place for place in places if os.access(place, os.W_OK)]]))
"""
    assert python(services, code) == [10001, 10001, ["/tmp"]]  # noqa: S108 - a name to compare, nothing is written
    writable = answer("run", "--rm", "--network=none", "--entrypoint=python", services, "-c", code)
    assert json.loads(writable)[2] == ["/tmp", "/var/lib/members", "/var/lib/salesforce"]  # noqa: S108 - as above


@of_each
def test_nothing_secret_is_in_the_image_s_configuration(images: dict[str, str], target: str) -> None:
    """Beyond what the base sets, the environment has the path and switches of Python."""
    names = (images[target], BASE)
    set_by = [set(json.loads(answer("image", "inspect", "--format={{json .Config.Env}}", name))) for name in names]
    added = {variable.partition("=")[0] for variable in set_by[0] - set_by[1]}
    assert added == CONTENTS[target].variables


def test_sigterm_reaches_process_1_and_ends_it_with_status_0(services: str) -> None:
    """The service itself is process 1; told to stop while it waits for its servers, it stops in order."""
    with running(services, "services.coupon_consumer", **WAITING) as container:
        wait_for_log(container, "Admin server listening")
        assert answer("exec", container, "python", "-c", "print(open('/proc/1/cmdline').read().split(chr(0))[:3])") == (
            "['python', '-m', 'services.coupon_consumer']"
        )
        answer("stop", "--time=40", container)
        assert answer("inspect", "--format={{.State.ExitCode}}", container) == "0"


def test_sigterm_in_the_first_moment_is_kept(services: str) -> None:
    """A stop that comes before Python has a handler is not lost: the service stops in order as soon as it can."""
    with running(services, "services.coupon_consumer", **WAITING) as container:
        answer("stop", "--time=40", container)
        assert answer("inspect", "--format={{.State.ExitCode}}", container) == "0"


def test_bad_settings_end_the_container_with_status_78(services: str) -> None:
    """A supervisor can tell a container that will never run from one that may be tried again."""
    with running(services, "services.coupon_consumer", COUPON_CONSUMER_KAFKA__BOOTSRTAP="kafka:9092") as container:
        assert answer("wait", container) == "78"


def test_the_health_check_tells_waiting_from_dead(services: str) -> None:
    """Docker's own check says unready while the servers are missing; the same script sees that the process lives."""
    with running(services, "services.coupon_consumer", **WAITING) as container:
        wait_for_log(container, "Admin server listening")
        check = json.loads(answer("inspect", "--format={{json .Config.Healthcheck.Test}}", container))
        assert check[0] == "CMD"
        assert docker("exec", container, *check[1:]).returncode == 1
        assert docker("exec", container, *check[1:], "/livez").returncode == 0


@of_each
def test_the_image_can_be_built_without_buildkit(baited_tree: Path, images: dict[str, str], target: str) -> None:
    """The older builder, which knows no cache mounts and reads `.dockerignore` by itself, makes the same files."""
    code = """
import json, pathlib
files = [path for path in pathlib.Path("/app").rglob("*") if path.is_file() and path.suffix != ".pyc"]
print(json.dumps(sorted([str(path), path.stat().st_mode, path.stat().st_size] for path in files)))
"""
    with built(baited_tree, target, buildkit=False) as other:
        assert python(other, code) == python(images[target], code)


def test_a_load_is_nobody_special_and_writes_to_its_directory_alone(etl: str) -> None:
    """It runs as 10001, in the one directory beside /tmp that it may write to, and takes no module from there."""
    code = """
import json, os, sys
places = ["/app", "/app/etl", "/app/.venv", "/etc", "/tmp", "/var/lib/etl"]
print(json.dumps([os.getuid(), os.getgid(), os.getcwd(), [place for place in places if os.access(place, os.W_OK)],
                  any(path in ("", os.getcwd()) for path in sys.path)]))
"""
    printed = json.loads(answer("run", "--rm", "--network=none", "--entrypoint=python", etl, "-c", code))
    assert printed == [10001, 10001, "/var/lib/etl", ["/tmp", "/var/lib/etl"], False]  # noqa: S108 - names to compare


def test_a_load_ends_by_itself_with_the_status_that_its_rows_deserve(etl: str, tmp_path: Path) -> None:
    """Read-only, with a file that it may only read, it checks every row, and leaves its report in its directory."""
    path = tmp_path / "coupons.csv"
    path.write_bytes(CouponFile(rows=500, seed=1, bad_percent=2).content())
    path.chmod(0o644)
    tmp_path.chmod(0o755)
    mounts = (f"--volume={tmp_path}:/data:ro", "--volume=/var/lib/etl")
    command = ("load", "/data/coupons.csv", "--dry-run", "--report", "report.json")
    with running(etl, *command, mounts=mounts, **LOAD_WAITING) as container:
        assert answer("wait", container) == "3", docker("logs", container).stderr
        copied = tmp_path / "report.json"
        answer("cp", f"{container}:/var/lib/etl/report.json", str(copied))
    assert json.loads(copied.read_text())["files"][0]["rows"] == 500


def test_a_load_is_process_1_and_ends_with_75_at_sigterm(etl: str) -> None:
    """Told to stop while it waits for its database, it says that it can be gone on with."""
    with running(etl, "load", "/data/none.csv", **LOAD_WAITING) as container:
        wait_for_log(container, "Admin server listening")
        code = "print(open('/proc/1/cmdline').read().split(chr(0))[:4])"
        assert answer("exec", container, "python", "-c", code) == "['python', '-m', 'etl', 'load']"
        answer("stop", "--time=40", container)
        assert answer("inspect", "--format={{.State.ExitCode}}", container) == "75"


def test_a_load_that_is_stopped_in_its_first_moment_ends_with_75(etl: str) -> None:
    """A stop that comes before Python has a handler is not lost."""
    with running(etl, "load", "/data/none.csv", **LOAD_WAITING) as container:
        answer("stop", "--time=40", container)
        assert answer("inspect", "--format={{.State.ExitCode}}", container) == "75"


def test_a_load_has_no_health_to_be_asked_for(etl: str) -> None:
    """It ends by itself; nobody waits for it to be ready."""
    assert answer("image", "inspect", "--format={{json .Config.Healthcheck}}", etl) == "null"
