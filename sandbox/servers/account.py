"""Choose the operating-system account under which a server runs."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group id to switch to before a server's program is executed."""

    user_id: int
    group_id: int

    def own(self, path: Path) -> None:
        """Make the account the owner of one file or directory."""
        os.chown(path, self.user_id, self.group_id)

    def can_run(self, program: Path) -> bool:
        """Tell whether the account can execute a program, its libraries included, by doing so."""
        try:
            result = subprocess.run(
                [program, "--version"],
                user=self.user_id,
                group=self.group_id,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                timeout=30,
                check=False,
            )
        except OSError:
            return False
        return result.returncode == 0


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


def program_for(account: Account | None, root: Path, program: str, directory: Path) -> Path:
    """Return the path of a program under `root` that the account can execute.

    A virtual environment below a home directory that others may not enter (`/root`) is out of reach for another
    account: then the tree below `root` is copied into `directory` once.
    """
    installed = root / program
    if account is None or account.can_run(installed):
        return installed
    copy = directory / "program"
    if not copy.exists():
        shutil.copytree(root, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "__pycache__"))
    (copy / program).chmod(0o755)
    return copy / program
