"""Load files of coupons into the platform that is running: `make etl FILE=...`.

    python -m sandbox.etl FILE... [-- OPTIONS of etl load]

Into the embedded demo where one runs, else into the stack that compose runs. This process becomes the load, with its
terminal and its exit status; or docker compose, which hands Ctrl-C on to the load where there is a terminal.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sandbox.journal import REJECTS
from sandbox.links import ROOT, NotRunningError, ask_compose
from sandbox.place import PLACE, is_held

ENVIRONMENT: Final = "etl-environment.json"
"""The file in which the embedded demo says how a load reaches its database."""
_STANDARD_INPUT: Final = "-"
_SEEN_AS: Final = "/data"
_EXIT_USAGE: Final = 2
_START: Final = "Start one of the two, `make demo` or `docker compose up --build --wait`, and try again."


Command = tuple[list[str], Mapping[str, str]]
"""A program with its arguments, and the variables that it gets on top of this process's own."""


def find_load(place: Path, files: Sequence[str], options: Sequence[str]) -> Command:
    """Return what loads files into the platform that is running.

    Raises:
        NotRunningError: there is none; the message says what to do.
    """
    if is_held(place):
        try:
            variables = json.loads((place / ENVIRONMENT).read_text("utf-8"))
        except FileNotFoundError:
            raise NotRunningError("`make demo` is starting: try again when it lists its links") from None
        own = ["--rejects-directory", str(place / REJECTS)]
        return [sys.executable, "-m", "etl", "load", *own, *options, "--", *files], variables
    try:
        containers = ask_compose("docker compose ps --quiet postgres")
    except NotRunningError as error:
        raise NotRunningError(f"`make demo` does not run here, and docker compose says: {error}. {_START}") from error
    if not containers:
        raise NotRunningError(f"neither `make demo` nor the stack of docker compose runs here. {_START}")
    return _container_command(files, options)


def _container_command(files: Sequence[str], options: Sequence[str]) -> Command:
    """Return the load as a container: it sees the one directory that all files are in, or below."""
    paths = [Path(file).resolve() for file in files if file != _STANDARD_INPUT]
    directory = os.path.commonpath([path.parent for path in paths]) if paths else str(ROOT)
    seen = [f"{_SEEN_AS}/{path.relative_to(directory)}" for path in paths]
    seen += [_STANDARD_INPUT] * (len(files) - len(paths))
    run = ["docker", "compose", "--project-directory", str(ROOT), "run", "--rm", "--no-deps", "--build"]
    terminal = [] if sys.stdin.isatty() else ["--no-TTY"]
    return [*run, *terminal, "etl", "load", *options, "--", *seen], {"ETL_FILES": directory}


def main(arguments: Sequence[str], place: Path = PLACE) -> int:
    """Become the load of the files that the arguments name, or say what is missing and return a status."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    files, options = arguments[:end], arguments[end + 1 :]
    if not files:
        print("Which file? make etl FILE=coupons.csv, and OPTIONS='--workers 4' for more.", file=sys.stderr)
        return _EXIT_USAGE
    try:
        command, variables = find_load(place, files, options)
        os.execvpe(command[0], command, {**os.environ, **variables})  # noqa: S606 - no shell is wanted
    except (NotRunningError, OSError) as error:
        print(f"Nothing is loaded: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
