"""What consent_consumer can be told about Salesforce."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from runtime.settings import Seconds, Section, certificate_conflicts, secret_conflicts

_BASE_URL = re.compile(r"https?://[A-Za-z0-9.:_\[\]-]+")


def _check_url(url: str) -> str:
    base = url.rstrip("/")
    try:
        parts = urlsplit(base)
        is_base = _BASE_URL.fullmatch(base) is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_base = False
    if not is_base:
        raise ValueError("must be https:// and a host, with nothing behind it")
    return base


class SalesforceSettings(Section):
    """Say how Salesforce is reached, and how it is spared when it fails.

    The connection is TLS. Plain HTTP is for the stand-in: on loopback, and elsewhere by `allow_plain_http` alone.

    Attributes:
        url: of "My Domain", under which both the token endpoint and the REST interface are; no redirect is followed.
        client_id: of the connected app, as `client_secret_file`, which is read anew for each token.
        version_rule: with what the message of the validation rule on versions begins; the rule is
            `Version__c < PRIORVALUE(Version__c)`, on both objects.
        call_timeout_seconds: for one request and its whole answer, the wait for a free connection included.
        timeout_seconds: for one call with all that belongs to it: a token, and a second try with a new one. A stop
            waits for it. A token that came is kept, so the next call has the whole time for itself.
        connections_max: how many requests there are at once.
        idle_seconds: how long an unused connection is kept; less than the other side keeps it.
        answer_bytes_max: of an answer, packed and unpacked.
        backoff_first_seconds: the pause after a failure, a random half to whole of it; it doubles while they go on.
        backoff_most_seconds: what it doubles up to.
        retry_after_most_seconds: what a longer Retry-After is cut down to.
        denied_pause_seconds: the pause after a refusal that only somebody's work can mend, such as of the secret.
    """

    url: Annotated[str, AfterValidator(_check_url)]
    client_id: str = Field(min_length=1, max_length=255)
    client_secret_file: Path
    allow_plain_http: bool = False
    tls_ca_file: Path | None = None
    api_version: str = Field(default="v60.0", pattern=r"^v[1-9][0-9]{1,2}\.0$")
    version_rule: str = Field(default="Version_Must_Not_Decrease", min_length=1, max_length=255)
    connect_timeout_seconds: Seconds = 5.0
    call_timeout_seconds: Seconds = 12.0
    timeout_seconds: Seconds = 12.0
    connections_max: int = Field(default=4, ge=1, le=1_000)
    idle_seconds: Seconds = 20.0
    answer_bytes_max: int = Field(default=4 * 1024 * 1024, ge=1_024, le=256 * 1024 * 1024)
    backoff_first_seconds: Seconds = 0.5
    backoff_most_seconds: Seconds = 30.0
    retry_after_most_seconds: Seconds = 300.0
    denied_pause_seconds: Seconds = 60.0

    def conflicts(self) -> Iterator[str]:
        """Yield a connection without TLS, a secret that cannot be read, and times out of order."""
        parts = urlsplit(self.url)
        is_plain = parts.scheme == "http"
        if is_plain and not self.allow_plain_http and not _is_loopback(parts.hostname or ""):
            yield "url must begin with https://: without TLS the secret could be read on the way"
        yield from secret_conflicts("client_secret", None, self.client_secret_file)
        if self.tls_ca_file is not None and is_plain:
            yield "tls_ca_file is given but url begins with http://"
        yield from certificate_conflicts(self.tls_ca_file)
        if self.connect_timeout_seconds > self.call_timeout_seconds:
            yield "connect_timeout_seconds is greater than call_timeout_seconds"
        if self.call_timeout_seconds > self.timeout_seconds:
            yield "call_timeout_seconds is greater than timeout_seconds"
        if self.backoff_first_seconds > self.backoff_most_seconds:
            yield "backoff_first_seconds is greater than backoff_most_seconds"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
