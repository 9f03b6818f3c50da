"""Choose the operating-system account under which a server runs."""

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from sandbox.servers.errors import ServerUnavailableError

_TRIAL_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group id to switch to before a server's program is executed."""

    user_id: int
    group_id: int

    def own(self, path: Path) -> None:
        """Make the account the owner of one file or directory."""
        os.chown(path, self.user_id, self.group_id)

    def can_enter(self, directory: Path) -> bool:
        """Tell whether the account may pass through every directory above this one."""
        return all(parent.stat().st_mode & stat.S_IXOTH for parent in directory.parents)


def unprivileged_account() -> Account | None:
    """Return the account a server must switch to, or None when this process has no privileges to drop.

    PostgreSQL refuses to run as root, and its `initdb` wants an account that has a name, so the conventional
    `nobody` is taken.

    Raises:
        KeyError: this process is root and the machine knows no `nobody`.
    """
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(user_id=nobody.pw_uid, group_id=nobody.pw_gid)


def program_for(account: Account | None, package: Path, program: str, directory: Path) -> Path:
    """Return the path of a program in an installed package that the account can execute, its libraries included.

    A virtual environment below a home directory that others may not enter is out of reach for another
    account: then the package, and the folder of libraries that its wheel put beside it, are copied into `directory`.

    Raises:
        ServerUnavailableError: this machine cannot execute it; the message says what is missing.
    """
    installed = package / program
    if (fault := _trial(installed, None)) is not None:
        raise ServerUnavailableError(f"this machine cannot run {installed.name}: {fault}")
    if account is None or _trial(installed, account) is None:
        return installed
    copy = _copy(package, directory / "program") / program
    if (fault := _trial(copy, account)) is not None:
        raise ServerUnavailableError(f"an unprivileged account cannot run {copy}: {fault}")
    return copy


def _copy(package: Path, place: Path) -> Path:
    place.mkdir(exist_ok=True)
    place.chmod(0o755)
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.exists() and not (place / source.name).exists():
            shutil.copytree(
                source, place / source.name, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__")
            )
    (place / package.name).chmod(0o755)
    return place / package.name


def _trial(program: Path, account: Account | None) -> str | None:
    """Execute a program once, for its version; return the last line of what went wrong."""
    try:
        result = subprocess.run(
            [program, "--version"],
            user=None if account is None else account.user_id,
            group=None if account is None else account.group_id,
            extra_groups=None if account is None else [],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if result.returncode == 0:
        return None
    lines = result.stderr.strip().splitlines()
    return lines[-1] if lines else f"status {result.returncode}"
