"""Print a bearer token for the demo that is running: `make token MEMBER=m-1`."""

import argparse
import sys
from pathlib import Path

from runtime.auth import sign_token
from sandbox.place import PLACE, is_held
from sandbox.system import secret_file

_LIFETIME_SECONDS = 86_400


def main() -> int:
    """Print a token that holds for a day and return 0, or say what is wrong and return 1."""
    parser = argparse.ArgumentParser(description="Print a bearer token for the demo that is running.")
    parser.add_argument("--member", default="m-1", help="whom it is for (default: m-1)")
    parser.add_argument("--scope", default="member", choices=("member", "operator"))
    parser.add_argument("--directory", type=Path, default=PLACE, help="the demo's directory")
    arguments = parser.parse_args()
    if not is_held(arguments.directory):
        print("No demo is running here: start one with `make demo`.", file=sys.stderr)
        return 1
    secret = secret_file(arguments.directory).read_text()
    try:
        print(sign_token(arguments.member, arguments.scope, secret, lifetime_seconds=_LIFETIME_SECONDS))
    except ValueError as error:
        print(f"No such member: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
