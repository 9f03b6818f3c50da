"""An environment that is wrong, what is said of it, and the good ones that rows spoil."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sandbox.instance import Service
from tests.bad_input.http_row import CAMPAIGN_API, CANARY, COUPON_API, REWARD_STORE

COUPON_CONSUMER: Final = Service.COUPON_CONSUMER
CONSENT_CONSUMER: Final = Service.CONSENT_CONSUMER

FILES: Final[Mapping[str, bytes]] = {
    "$good": b"0123456789abcdef" * 2,
    "$empty": b"\n",
    "$short": f"{CANARY}\n".encode(),
    "$binary": b"\xff\xfe" * 20,
}
"""Files by the word that stands for their path; `$missing` and `$directory` are what they say."""

_DATABASE: Final = {"POSTGRES__DATABASE": "db", "POSTGRES__USER": "role", "POSTGRES__PASSWORD": f"secret-{CANARY}"}
_MONGO: Final = {"MONGO__DATABASE": "db", "MONGO__USER": "role", "MONGO__PASSWORD": f"secret-{CANARY}"}
GOOD: Final[Mapping[Service, Mapping[str, str]]] = {
    COUPON_API: {**_DATABASE, "AUTH__SECRET_FILE": "$good"},
    REWARD_STORE: {
        **_DATABASE,
        "AUTH__SECRET_FILE": "$good",
        "KAFKA__BOOTSTRAP": "127.0.0.1:9092",
        "COUPON_API__URLS": "http://127.0.0.1:8081",
        "COUPON_API__TOKEN_FILE": "$good",
    },
    CAMPAIGN_API: {**_MONGO, "AUTH__SECRET_FILE": "$good"},
    CONSENT_CONSUMER: {
        **_MONGO,
        "SALESFORCE__URL": "https://example.my.salesforce.com",
        "SALESFORCE__CLIENT_ID": "consents",
        "SALESFORCE__CLIENT_SECRET_FILE": "$good",
        "START": "resync",
    },
    COUPON_CONSUMER: {**_DATABASE, "KAFKA__BOOTSTRAP": "127.0.0.1:9092", "CONSUMER__TOPIC": "coupon-events"},
}


@dataclass(frozen=True, slots=True)
class SettingsRow:
    """Changes of a good environment (None takes a variable away), and what is said.

    Names are without the service's prefix, for which `~` stands in the lines.
    """

    name: str
    service: Service
    changes: Mapping[str, str | None]
    lines: tuple[str, ...]
