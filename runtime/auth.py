"""Bearer tokens: who calls, and as what.

A token is a JWT: `sub` names the caller, `scope` says "member" or "operator". Verified tokens are remembered until they
expire, in a bounded cache, because a signature costs more than the rest of a small request.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import jwt
from fastapi import Depends
from starlette.requests import Request

from runtime.logs import get_logger
from runtime.problem import Problem
from runtime.settings import AuthSettings, read_token_key

Scope = Literal["member", "operator"]

SUBJECT_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
TOKEN_BYTES_MAX: Final = 4096
# The library forgives padding, so that one token would have several spellings.
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
KEY_CHECK_SECONDS: Final = 1.0

_log = get_logger("runtime.http")


@dataclass(frozen=True, slots=True)
class Principal:
    """Name the caller and what they are."""

    subject: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Count the verified tokens in memory."""

    remembered: int


class TokenVerifier:
    """Verify bearer tokens, remembering the good ones until they expire.

    The key's file is looked at again at most once a second; a new key empties the memory, so a rotation takes effect
    without a restart. While the file cannot be read, or holds no usable key, the last good key stays in use, and one
    error line tells why. Not safe across threads: one loop owns it.

    Args:
        settings: algorithm, the key's file, who must have issued the token and for whom, and how many to remember.
        clock: seconds since 1970.

    Raises:
        OSError: the key's file cannot be read.
        ValueError: the key is unusable, as `read_token_key` says.
    """

    def __init__(self, settings: AuthSettings, *, clock: Callable[[], float] = time.time) -> None:
        file = settings.secret_file if settings.algorithm == "HS256" else settings.public_key_file
        if file is None:
            raise ValueError(f"{settings.algorithm} needs a key file")
        self._settings = settings
        self._file: Path = file
        self._clock = clock
        self._cache: dict[bytes, tuple[Principal, float]] = {}
        self._stamp = _stamp(file)
        self._key = read_token_key(settings.algorithm, file)
        self._unusable: object = self._stamp
        self._looked_at = clock()
        self._options: Any = {"require": ["exp", "sub", "scope"]}

    def verify(self, authorization: bytes) -> Principal:
        """Give the caller named by an Authorization header's value.

        Raises:
            Problem: 401, without telling an attacker which check failed.
        """
        now = self._clock()
        if not self._looked_at <= now < self._looked_at + KEY_CHECK_SECONDS:  # the time of day may go back
            self._look_for_new_key(now)
        known = self._cache.get(authorization)
        if known is not None and now < known[1]:
            return known[0]
        return self._verify_anew(authorization, now)

    def statistics(self) -> TokenStatistics:
        """Say how many tokens are remembered."""
        return TokenStatistics(len(self._cache))

    def _verify_anew(self, authorization: bytes, now: float) -> Principal:
        self._cache.pop(authorization, None)
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or len(token) > TOKEN_BYTES_MAX or not _TOKEN.fullmatch(token):
            raise unauthorized("invalid-token")
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[settings.algorithm],
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=settings.leeway_seconds,
                options=self._options,
            )
            expires_at = float(claims["exp"]) + settings.leeway_seconds
        except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError):
            raise unauthorized("invalid-token") from None
        subject, scope = claims["sub"], claims["scope"]
        if not isinstance(subject, str) or not SUBJECT_PATTERN.fullmatch(subject):
            raise unauthorized("invalid-token")
        if scope not in ("member", "operator"):
            raise unauthorized("invalid-token")
        principal = Principal(subject, cast("Scope", scope))
        if settings.cache_size and now < expires_at:
            if len(self._cache) >= settings.cache_size:
                del self._cache[next(iter(self._cache))]
            self._cache[authorization] = (principal, expires_at)
        return principal

    def _look_for_new_key(self, now: float) -> None:
        self._looked_at = now
        stamp = None
        try:
            stamp = _stamp(self._file)
            if stamp != self._stamp:
                self._key = read_token_key(self._settings.algorithm, self._file)
                self._stamp = stamp
                self._cache.clear()
        except (OSError, ValueError) as error:
            if stamp != self._unusable:
                # A decoding error's text shows a byte of the secret.
                reason = type(error).__name__ if isinstance(error, UnicodeError) else str(error)
                _log.error("Token key not replaced", file=str(self._file), error=reason)
        self._unusable = stamp


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def unauthorized(code: str) -> Problem:
    """Build the 401 that tells a client to bring a token."""
    return Problem(401, code, headers={"www-authenticate": "Bearer"})


def principal_of(request: Request) -> Principal:
    """Give the caller of a request; every route but the API's own documents has one.

    Raises:
        Problem: 401, when the request did not pass through the API that verifies tokens.
    """
    principal = request.scope.get("principal")
    if not isinstance(principal, Principal):
        raise unauthorized("missing-token")
    return principal


def member_of(request: Request) -> Principal:
    """Give the calling member.

    Raises:
        Problem: 403, when the caller is not a member.
    """
    return _with_scope(request, "member")


def operator_of(request: Request) -> Principal:
    """Give the calling operator.

    Raises:
        Problem: 403, when the caller is not an operator.
    """
    return _with_scope(request, "operator")


def _with_scope(request: Request, scope: Scope) -> Principal:
    principal = principal_of(request)
    if principal.scope != scope:
        raise Problem(403, "wrong-scope", f"This needs a token whose scope is {scope}.")
    return principal


# FastAPI runs a plain function in a thread; these never wait, so they are coroutines only for its sake.
async def _principal(request: Request) -> Principal:
    return principal_of(request)


async def _member(request: Request) -> Principal:
    return member_of(request)


async def _operator(request: Request) -> Principal:
    return operator_of(request)


current_principal = Depends(_principal)
current_member = Depends(_member)
current_operator = Depends(_operator)

CurrentPrincipal = Annotated[Principal, current_principal]
CurrentMember = Annotated[Principal, current_member]
CurrentOperator = Annotated[Principal, current_operator]


def sign_token(
    subject: str,
    scope: Scope,
    key: str,
    *,
    lifetime_seconds: int = 3600,
    algorithm: Literal["HS256", "RS256"] = "HS256",
    claims: dict[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
) -> str:
    """Make a token, for the sandbox and tests; a real platform's identity provider does this.

    Raises:
        ValueError: the subject would not be accepted by `TokenVerifier`.
    """
    if not SUBJECT_PATTERN.fullmatch(subject):
        raise ValueError("subject must be 1 to 64 letters, digits, dots, dashes or underscores")
    now = int(clock())
    payload = {"sub": subject, "scope": scope, "iat": now, "exp": now + lifetime_seconds, **(claims or {})}
    return jwt.encode(payload, key, algorithm=algorithm)
