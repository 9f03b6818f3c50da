"""What the sandbox can be told when it starts."""

from __future__ import annotations

import argparse
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.settings import read_secret
from sandbox.salesforce.rate import check_rate
from sandbox.salesforce.tokens import ConnectedApp
from sandbox.servers.address import LOOPBACK

_PORT = 8_099
_SECRET_CHARACTERS_MIN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SalesforceSettings:
    """How the sandbox is to be.

    Attributes:
        log: the append-only log; what it holds is there again after a restart.
        app: who may ask for tokens.
        host: where it listens; loopback unless told otherwise.
        port: where it listens; 0 lets the system choose.
        control_secret: what opens the control interface; needed where `host` is not loopback.
        token_seconds: how long a token is valid.
        calls_per_second: beyond this rate calls are refused with REQUEST_LIMIT_EXCEEDED; None for no limit.
        records_max: how many records are kept, of all objects together; held in memory, about 2 KB each.
        body_bytes_max: of a call; beyond it 413.
        log_bytes_max: how large the log may grow; a call that does not fit fails with 500 and applies nothing.

    Raises:
        ValueError: one of them is out of its range.
    """

    log: Path
    app: ConnectedApp
    host: str = LOOPBACK
    port: int = 0
    control_secret: str | None = field(default=None, repr=False)
    token_seconds: float = 7_200.0
    calls_per_second: float | None = None
    records_max: int = 500_000
    body_bytes_max: int = 6 * 1024 * 1024
    log_bytes_max: int = 2 * 1024**3

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ValueError("port must be from 0 to 65535")
        if self.control_secret is None and not _is_loopback(self.host):
            raise ValueError("control_secret must be given where host is not loopback")
        if self.control_secret is not None and len(self.control_secret) < _SECRET_CHARACTERS_MIN:
            raise ValueError(f"control_secret must have at least {_SECRET_CHARACTERS_MIN} characters")
        if not 0 < self.token_seconds <= 86_400 * 365:
            raise ValueError("token_seconds must be above 0 and at most a year")
        check_rate(self.calls_per_second)
        if not 1 <= self.records_max <= 10_000_000:
            raise ValueError("records_max must be from 1 to 10000000")
        if not 1_024 <= self.body_bytes_max <= 64 * 1024 * 1024:
            raise ValueError("body_bytes_max must be from 1024 to 67108864")
        if not 1_024 <= self.log_bytes_max <= 1024**4:
            raise ValueError("log_bytes_max must be from 1024 to 1099511627776")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_arguments(arguments: Sequence[str] | None = None) -> SalesforceSettings:
    """Read the command line; it names secrets' files, never a secret. Ends the process where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.salesforce",
        description="A server that behaves like Salesforce's REST interface, and misbehaves on command.",
        allow_abbrev=False,
    )
    parser.add_argument("--log", type=Path, required=True, help="the append-only log of what was applied")
    client_id = parser.add_mutually_exclusive_group(required=True)
    client_id.add_argument("--client-id", help="who may ask for tokens; no secret")
    client_id.add_argument("--client-id-file", type=Path, help="the same, in a file")
    parser.add_argument("--client-secret-file", type=Path, required=True, help="their secret")
    parser.add_argument("--control-secret-file", type=Path, help="opens the control; needed beyond loopback")
    parser.add_argument("--host", default=LOOPBACK, help=f"where to listen (default: {LOOPBACK})")
    parser.add_argument("--port", type=int, default=_PORT, help=f"default: {_PORT}; 0 lets the system choose")
    parser.add_argument("--token-seconds", type=float, default=7_200.0, help="how long a token is valid")
    parser.add_argument("--calls-per-second", type=float, help="calls beyond this rate are refused (default: none)")
    parser.add_argument("--records-max", type=int, default=500_000, help="how many records are kept")
    parser.add_argument("--body-bytes-max", type=int, default=6 * 1024 * 1024, help="of a call")
    parser.add_argument("--log-bytes-max", type=int, default=2 * 1024**3, help="how large the log may grow")
    found = parser.parse_args(arguments)
    try:
        return SalesforceSettings(
            log=found.log,
            app=ConnectedApp(
                str(read_secret(None, found.client_id_file)) if found.client_id is None else found.client_id,
                str(read_secret(None, found.client_secret_file)),
            ),
            host=found.host,
            port=found.port,
            control_secret=read_secret(None, found.control_secret_file),
            token_seconds=found.token_seconds,
            calls_per_second=found.calls_per_second,
            records_max=found.records_max,
            body_bytes_max=found.body_bytes_max,
            log_bytes_max=found.log_bytes_max,
        )
    except (OSError, ValueError) as error:
        parser.error(str(error))
