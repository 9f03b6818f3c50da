"""Who may ask for tokens, which of them are valid, and for how long."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

TOKENS_MAX: Final = 10_000
"""How many tokens are remembered; the oldest one goes first."""
_ORGANISATION = "00D000000000001EAA"


@dataclass(frozen=True, slots=True)
class ConnectedApp:
    """Who may ask for tokens: the consumer's key and secret."""

    client_id: str
    client_secret: str = field(repr=False)

    def knows(self, client_id: str, client_secret: str) -> bool:
        """Compare both without telling by the time it takes how much of them is right."""
        is_id = hmac.compare_digest(client_id.encode(), self.client_id.encode())
        return hmac.compare_digest(client_secret.encode(), self.client_secret.encode()) and is_id


class Tokens:
    """Issue and know tokens. They live in memory alone: none outlives the process, as none is meant to live for ever.

    Args:
        lifetime_seconds: how long each is valid.
        now: gives a time in seconds that never goes back.
    """

    def __init__(self, lifetime_seconds: float, now: Callable[[], float]) -> None:
        self._lifetime_seconds = lifetime_seconds
        self._now = now
        self._valid_until: OrderedDict[str, float] = OrderedDict()

    def issue(self) -> str:
        """Make a token, which is valid from now on."""
        token = f"{_ORGANISATION}!{secrets.token_urlsafe(48)}"
        if len(self._valid_until) >= TOKENS_MAX:
            self._valid_until.popitem(last=False)
        self._valid_until[token] = self._now() + self._lifetime_seconds
        return token

    def is_valid(self, token: str) -> bool:
        """Say whether a token was issued here, has not expired and has not been revoked."""
        valid_until = self._valid_until.get(token)
        if valid_until is None:
            return False
        if valid_until > self._now():
            return True
        del self._valid_until[token]
        return False

    def revoke_all(self) -> None:
        """Make all tokens of now invalid; those issued later are not touched."""
        self._valid_until.clear()
