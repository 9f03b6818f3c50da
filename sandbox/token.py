"""Print a bearer token for the platform that is running: `make token`.

Of the embedded demo where one runs, else of the stack that compose runs.
"""

import argparse
import sys
from pathlib import Path

from runtime.auth import sign_token
from sandbox.links import COMPOSE_TOKEN, GUEST, NotRunningError, ask_compose
from sandbox.place import PLACE, is_held
from sandbox.system import secret_file

_LIFETIME_SECONDS = 86_400


def main() -> int:
    """Print a token that holds for a day and return 0, or say what is wrong and return 1."""
    parser = argparse.ArgumentParser(description="Print a bearer token for the platform that is running.")
    parser.add_argument("--member", default=GUEST, help=f"whom it is for (default: {GUEST})")
    parser.add_argument("--scope", default="member", choices=("member", "operator"))
    parser.add_argument("--directory", type=Path, default=PLACE, help="the embedded demo's directory")
    parser.add_argument("--secret-file", type=Path, help="what tokens are signed with, instead of looking for it")
    arguments = parser.parse_args()
    secret: Path | None = arguments.secret_file
    if secret is None and is_held(arguments.directory):
        secret = secret_file(arguments.directory)
    try:
        if secret is None:
            print(ask_compose(COMPOSE_TOKEN, "--member", arguments.member, "--scope", arguments.scope))
        else:
            key = secret.read_text("utf-8")
            print(sign_token(arguments.member, arguments.scope, key, lifetime_seconds=_LIFETIME_SECONDS))
    except NotRunningError as error:
        print(f"No token: `make demo` does not run here, and docker compose says: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"No token yet: {error}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"No such member: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
