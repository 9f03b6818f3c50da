"""Run one of a service's commands: its settings, its log beside its output, and how a failure is told."""

import argparse
import sys
from collections.abc import Callable
from typing import Final

from runtime.errors import DependencyUnavailable, SettingsError
from runtime.hard_stop import EXIT_FAILED
from runtime.logs import close_logs, configure_logs
from runtime.process import EXIT_OK, EXIT_SETTINGS, SettingsT
from runtime.settings import load_settings

__all__ = ["EXIT_FAILED", "EXIT_OK", "count_of", "run_command_line", "say"]

_COUNT_MAX: Final = 1_000_000


def run_command_line(
    settings_type: type[SettingsT],
    parser: argparse.ArgumentParser,
    run: Callable[[SettingsT, argparse.Namespace], int],
) -> int:
    """Parse this process's arguments, read the service's settings, and return the exit status of ``run`` with both.

    78 stands for bad settings, 1 for a server that is away; either is told on standard error. Arguments that the parser
    refuses, or a question for help, end the process as argparse does.
    """
    arguments = parser.parse_args()
    try:
        settings = load_settings(settings_type)
        configure_logs(settings)  # to standard error: standard output is the command's
        try:
            return run(settings, arguments)
        finally:
            close_logs()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_SETTINGS
    except DependencyUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED


def say(line: str) -> None:
    """Write one line of a command's output."""
    sys.stdout.write(line + "\n")


def count_of(text: str) -> int:
    """Read an argument that bounds how much is done.

    Raises:
        ValueError, argparse.ArgumentTypeError: it is no number from 1 to a million.
    """
    number = int(text)
    if not 1 <= number <= _COUNT_MAX:
        raise argparse.ArgumentTypeError(f"must be from 1 to {_COUNT_MAX}")
    return number
