"""Run a service without one of its guards, to see that a test notices: a guard that nobody misses is not tested.

The service's own main is run, in a process of its own, after one or two of its statements were changed. Where the
database would refuse the wrong thing by itself (a unique key, a check) that second lock is taken off too.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from types import ModuleType

Removal = Callable[[], None]


def change(module: ModuleType, name: str, old: str, new: str) -> None:
    """Replace a part of one of a module's texts.

    Raises:
        ValueError: the text has no such part, so the guard would still be there.
    """
    text: str = getattr(module, name)
    if old not in text:
        raise ValueError(f"{module.__name__}.{name} has no {old!r}")
    put(module, name, text.replace(old, new))


def put(module: ModuleType | type[object], name: str, thing: object) -> None:
    """Put another thing in the place of one that a module or a class has.

    Raises:
        AttributeError: it has none of that name, so nothing would be replaced.
    """
    getattr(module, name)
    setattr(module, name, thing)


def run_without(guards: Mapping[str, Removal], main: Callable[[], int]) -> int:
    """Take away the guard that the command line names, and run the service to its end with the rest of that line."""
    parser = argparse.ArgumentParser(description="Run a service without one of its guards.", allow_abbrev=False)
    parser.add_argument("--without", choices=sorted(guards), required=True)
    known, sys.argv[1:] = parser.parse_known_args()
    guards[known.without]()
    return main()
