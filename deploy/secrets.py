"""Make the secrets that are missing, for everyone who reads them: `python -m deploy.secrets ROOT`.

Below `ROOT` each reader has a directory, in compose a volume of its own, which it alone mounts, read-only. Files are
owner-and-group readable (0440) and appear whole or not at all. What is there is never overwritten: a run that was cut
off is completed by the next one, with the same values. The one exception is the operator's token, which is no secret
of its own but signed with one: each run makes it anew, since it expires.

Status 0 when every reader has what it needs, else 1 with a sentence that names the file.
"""

import os
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from runtime.auth import sign_token

TOKEN_SECRET: Final = "token-secret"  # noqa: S105 - a file's name
OPERATOR_TOKEN: Final = "operator-token"  # noqa: S105 - a file's name
OPERATOR_TOKEN_SECONDS: Final = 366 * 86_400
_SECRET_BYTES: Final = 32
_MODE: Final = 0o440

READERS: Final[Mapping[str, Sequence[str]]] = {
    "postgres": ("postgres-password",),
    "migrations": (
        "postgres-password",
        "lp-owner-password",
        "reward-store-password",
        "coupon-api-password",
        "coupon-consumer-password",
        "etl-password",
    ),
    "reward-store": ("reward-store-password", TOKEN_SECRET, OPERATOR_TOKEN),
    "coupon-api": ("coupon-api-password", TOKEN_SECRET),
    "coupon-consumer": ("coupon-consumer-password",),
    "etl": ("etl-password",),
    "mongo": ("mongo-root-password", "mongo-key"),
    "mongo-setup": (
        "mongo-root-password",
        "campaign-api-password",
        "consent-consumer-password",
        "consent-writer-password",
        "auditor-password",
    ),
    "campaign-api": ("campaign-api-password", TOKEN_SECRET),
    "consent-consumer": ("consent-consumer-password", "salesforce-client-secret"),
    "salesforce": ("salesforce-client-secret", "salesforce-control-secret"),
    "demo": (
        "lp-owner-password",
        "consent-writer-password",
        "auditor-password",
        "salesforce-control-secret",
        TOKEN_SECRET,
    ),
}
"""Who reads which files."""


class SecretMismatchError(RuntimeError):
    """Two readers have different values of one secret, so one of them would be refused."""


def ensure_secrets(root: Path, readers: Mapping[str, Sequence[str]] = READERS) -> list[Path]:
    """Write what is missing and return the new files, tokens aside.

    Safe to run again, also after a kill at any point. Two runs at once are not: compose starts one.

    Raises:
        SecretMismatchError: two readers hold different values; nothing was written for that secret.
        OSError: a directory or file cannot be read or written.
        ValueError: a file is not UTF-8 text.
    """
    made = []
    names = sorted({name for wanted in readers.values() for name in wanted} - {OPERATOR_TOKEN})
    values = {}
    for name in names:
        files = [root / reader / name for reader, wanted in readers.items() if name in wanted]
        values[name] = _known(files) or secrets.token_hex(_SECRET_BYTES)  # MongoDB's key is base64: no - or _
        for file in files:
            if not file.exists():
                _write(file, values[name])
                made.append(file)
    for reader, wanted in readers.items():
        if OPERATOR_TOKEN in wanted:
            token = sign_token(reader, "operator", values[TOKEN_SECRET], lifetime_seconds=OPERATOR_TOKEN_SECONDS)
            _write(root / reader / OPERATOR_TOKEN, token)
    return made


def _known(files: Sequence[Path]) -> str | None:
    """Return the one value that the files which are there hold."""
    values = {file.read_text("utf-8") for file in files if file.exists()}
    if len(values) > 1:
        raise SecretMismatchError(f"{files[0].name} differs between its readers; remove all but one of the files")
    return next(iter(values), None)


def _write(file: Path, value: str) -> None:
    """Put a file in place whole, readable by its owner and group; an older one is replaced."""
    file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(value)
            os.fchmod(stream.fileno(), _MODE)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def main(arguments: Sequence[str]) -> int:
    """Make the secrets below the given directory; return the process's status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m deploy.secrets ROOT\n")
        return 64
    try:
        made = ensure_secrets(Path(arguments[0]))
    except (OSError, ValueError, SecretMismatchError) as error:
        sys.stderr.write(f"secrets: {error}\n")
        return 1
    sys.stdout.write(f"secrets: {len(made)} files made\n" if made else "secrets: nothing to do\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
