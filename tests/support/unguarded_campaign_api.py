"""campaign_api without one of its guards: `python -m tests.support.unguarded_campaign_api --without version`."""

import sys
from typing import Final

from uuid_utils.compat import uuid7

from loyalty.campaign import Campaign
from runtime.mongo import Document
from runtime.stored_answer import IdempotencyKey
from services.campaign_api import store
from services.campaign_api.__main__ import main
from tests.support.unguarded import Removal, put, run_without


def write_whatever_the_version() -> None:
    """Write over a campaign that somebody has changed since it was read."""

    def as_it_is(campaign: Campaign) -> Document:
        return {"_id": campaign.campaign_id}

    put(store, "_as_read", as_it_is)


def keep_under_another_key() -> None:
    """Keep each answer where nobody looks for it."""

    def key_of_nobody(key: IdempotencyKey) -> object:
        del key
        return str(uuid7())

    put(store, "_key_id", key_of_nobody)


GUARDS: Final[dict[str, Removal]] = {
    "version": write_whatever_the_version,
    "idempotency-key": keep_under_another_key,
}

if __name__ == "__main__":
    sys.exit(run_without(GUARDS, main))
