"""Look for secrets in everything that a process lets be seen, however they are written down there."""

import base64
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote


def spellings(secret: str) -> Iterator[bytes]:
    """Yield a secret as text, in a URL, in base 64 at each of its three alignments, and in hexadecimal."""
    raw = secret.encode()
    yield raw
    yield quote(secret, safe="").encode()
    yield raw.hex().encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + raw)
        middle = encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 4]
        yield middle
        yield middle.translate(bytes.maketrans(b"+/", b"-_"))


def leaks(secrets: Mapping[str, str], said: Mapping[str, bytes]) -> list[str]:
    """Return which secret is said where."""
    return [
        f"{name} in {where}"
        for name, secret in secrets.items()
        for where, content in said.items()
        if any(spelling in content for spelling in spellings(secret))
    ]


def seen_of_processes(pids: Iterable[int]) -> dict[str, bytes]:
    """Return what every user of the machine can see of processes, and their environment, which inherits and dumps."""
    return {
        f"{name} of {pid}": Path(f"/proc/{pid}/{name}").read_bytes()
        for pid in pids
        for name in ("cmdline", "environ", "comm")
    }
