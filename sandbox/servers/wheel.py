"""Find the programs that the servers' wheels carry, without importing those wheels."""

import importlib.util
import platform
from pathlib import Path

from sandbox.servers.errors import ServerUnavailableError


def wheel_directory(package: str, *, server: str, variable: str) -> Path:
    """Return the directory in which a package is installed.

    The package itself is not imported: one of the two creates directories in the user's home when it is.

    Raises:
        ServerUnavailableError: the package is not installed; its sentence names the way out.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        machine = f"{platform.system()} on {platform.machine()}"
        raise ServerUnavailableError(
            f"no embedded {server} for this machine ({machine}): set {variable} to a running one, or use docker compose"
        )
    return Path(spec.submodule_search_locations[0])
