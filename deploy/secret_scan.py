"""Look for secrets among the files that are committed: ``python -m deploy.secret_scan`` reads what git knows.

Status 0 when there is none, 1 when there is one, each named by file, line and kind, never by its content. A line that
holds an example on purpose says so with ``secret-scan: example``.

It knows the forms in which keys and tokens are handed out, which have few look-alikes; it does not guess by entropy.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

EXAMPLE: Final = "secret-scan: example"

# Each is written so that it does not find itself.
KINDS: Final = {
    "private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
    "JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}",
    "AWS key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_[A-Za-z0-9_]{60,}\b",
    "GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}\b",
    "Google key": r"\bAIza[A-Za-z0-9_-]{35}\b",
    "Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/T[A-Z0-9]+/B[A-Z0-9]+/[A-Za-z0-9]{20,}",
    "Stripe key": r"\b[rs]k_live_[A-Za-z0-9]{20,}\b",
    "package index token": r"\bpypi-AgEI[A-Za-z0-9_-]{50,}|\bnpm_[A-Za-z0-9]{36}\b",
    "Salesforce session": r"\b00D[A-Za-z0-9]{12,15}![A-Za-z0-9._]{80,}",
    "password in a URL": r"\b[a-z][a-z0-9+.-]*://[^\s/:@{}$<>'\"]+:[^\s/@{}$<>'\"]{8,}@(?!example\b|localhost\b|127\.0\.0\.1\b)",
}
_PATTERN: Final = re.compile("|".join(f"(?P<k{number}>{pattern})" for number, pattern in enumerate(KINDS.values())))
_NAMES: Final = tuple(KINDS)


def secrets_in(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of each line that holds a secret, with its kind."""
    for number, line in enumerate(text.splitlines(), start=1):
        if EXAMPLE not in line and (found := _PATTERN.search(line)) and found.lastgroup is not None:
            yield number, _NAMES[int(found.lastgroup[1:])]


def committed_files(root: Path) -> list[Path]:
    """Return the files that git knows, and those that the next commit could take.

    Raises:
        subprocess.CalledProcessError: this is no git repository.
        FileNotFoundError: there is no git.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True, timeout=60)  # noqa: S603 - fixed words
    files = (root / name for name in listed.stdout.decode().split("\0") if name)
    return [file for file in files if file.is_file() and not file.is_symlink()]


def scan(root: Path) -> list[str]:
    """Return what was found below a git repository's root, one line each; bytes that are no text hide nothing else.

    Raises:
        As `committed_files`.
    """
    return [
        f"{file.relative_to(root)}:{number}: {kind}"
        for file in committed_files(root)
        for number, kind in secrets_in(file.read_text("utf-8", "replace"))
    ]


def main() -> int:
    """Scan the repository that this file belongs to; return the process's status."""
    found = scan(Path(__file__).resolve().parents[1])
    for line in found:
        sys.stderr.write(f"secret: {line}\n")
    if not found:
        sys.stdout.write("no secrets in committed files\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
