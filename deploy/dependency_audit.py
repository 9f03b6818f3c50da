"""Ask whether locked packages have known weaknesses: ``python -m deploy.dependency_audit requirements/*.txt``.

It asks the open database of vulnerabilities (OSV) one question about all of them. Status 0 when none is known, and also
when the database cannot be reached, which is said plainly: without a network nothing is audited. Status 1 when one is
known, each named by package and id.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import httpx

SERVICE: Final = "https://api.osv.dev"
_QUESTIONS_MAX: Final = 1_000
_SECONDS: Final = 30.0
_PIN: Final = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([0-9][0-9a-z.+!]*)", re.MULTILINE)

Package = tuple[str, str]


class AuditError(Exception):
    """Say that the database answered, but not what was asked."""


def locked_packages(texts: Iterable[str]) -> list[Package]:
    """Return each package that locks pin, with its version, once and in order."""
    return sorted({(name, version) for text in texts for name, version in _PIN.findall(text)})


def known_weaknesses(packages: Sequence[Package], client: httpx.Client) -> list[str]:
    """Return a line for each weakness that is known of a package.

    Raises:
        httpx.TransportError: the database cannot be reached.
        AuditError: it answered something else than was asked.
    """
    lines = []
    for first in range(0, len(packages), _QUESTIONS_MAX):
        asked = packages[first : first + _QUESTIONS_MAX]
        queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in asked]
        answer = client.post("/v1/querybatch", json={"queries": queries})
        try:
            results = answer.raise_for_status().json()["results"]
            found = [[weakness["id"] for weakness in result.get("vulns", ())] for result in results]
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuditError(f"status {answer.status_code}") from error
        if len(found) != len(asked):
            raise AuditError(f"{len(found)} answers to {len(asked)} questions")
        lines += [f"{name} {version}: {one}" for (name, version), ids in zip(asked, found, strict=True) for one in ids]
    return lines


def main(arguments: Sequence[str], transport: httpx.BaseTransport | None = None) -> int:
    """Audit the locks of these paths and return the process's status; a test brings a transport of its own."""
    packages = locked_packages(Path(path).read_text("utf-8") for path in arguments)
    if not packages:
        sys.stderr.write("usage: python -m deploy.dependency_audit LOCK...\n")
        return 64
    try:
        with httpx.Client(base_url=SERVICE, timeout=_SECONDS, transport=transport) as client:
            found = known_weaknesses(packages, client)
    except httpx.TransportError as error:
        sys.stdout.write(f"dependency audit: SKIPPED, {SERVICE} cannot be reached ({type(error).__name__})\n")
        return 0
    except AuditError as error:
        sys.stderr.write(f"dependency audit: {SERVICE} gave no answer to use: {error}\n")
        return 1
    for line in found:
        sys.stderr.write(f"known weakness: {line}\n")
    sys.stdout.write(f"dependency audit: {len(packages)} packages, {len(found)} known weaknesses\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
