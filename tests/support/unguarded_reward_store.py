"""reward_store without one of its guards: `python -m tests.support.unguarded_reward_store --without outbox-lease`."""

import sys
from typing import Final

from runtime import stored_answer
from runtime.postgres import Connection
from runtime.stored_answer import IdempotencyKey, StoredAnswer
from services.reward_store import store
from services.reward_store.__main__ import main
from tests.support.unguarded import Removal, change, put, run_without

_CHECKED_STOCK: Final = "update rewards set stock = stock - 1 where reward_id = $1 and stock > 0"
_CHECKED_POINTS: Final = "update members set points = points - reward.points_cost from reward"
_IS_RICH: Final = "and members.points >= reward.points_cost"


def forget_leases() -> None:
    """Claim what another relay holds."""
    change(store, "_CLAIM", "and (claimed_until is null or claimed_until < now())", "")


def mark_when_claimed() -> None:
    """Mark rows as published before the broker has spoken."""
    change(store, "_CLAIM", "set claimed_until", "set published_at = now(), claimed_until")


def forget_order() -> None:
    """Claim an event whose coupon has an earlier one that is not published."""
    change(store, "_CLAIM", "and earlier.version < outbox.version", "and false")


def forget_answers() -> None:
    """Keep no answer under its key."""

    async def store_nothing(connection: Connection, key: IdempotencyKey, answer: StoredAnswer) -> None:
        del connection, key, answer

    put(store, "store_answer", store_nothing)


def claim_without_lock() -> None:
    """Let two requests work under one key at once, and let the later one keep no answer instead of failing."""
    change(stored_answer, "_LOCK", "pg_try_advisory_xact_lock($1)", "$1::bigint is not null")
    change(stored_answer, "_STORE", "$6)", "$6) on conflict do nothing")


def read_stock_before() -> None:
    """Look at the stock first and write down what is then left: an update that was overtaken does not notice."""
    change(
        store,
        "_TAKE",
        "with reward as",
        "with seen as (select stock as seen from rewards where reward_id = $1), reward as",
    )
    change(
        store,
        "_TAKE",
        _CHECKED_STOCK,
        "update rewards set stock = seen - 1 from seen where reward_id = $1 and seen > 0",
    )


def read_points_before() -> None:
    """Look at the points first and write down what is then left: an update that was overtaken does not notice."""
    change(
        store,
        "_TAKE",
        "with reward as",
        "with seen as (select points as seen from members where member_id = $2), reward as",
    )
    change(store, "_TAKE", _CHECKED_POINTS, "update members set points = seen - reward.points_cost from reward, seen")
    change(store, "_TAKE", _IS_RICH, "and seen >= reward.points_cost")


def forget_wishes() -> None:
    """Ask coupon_api before it is written down here that somebody wants to cancel."""
    change(store, "_BEGIN_CANCEL", store._BEGIN_CANCEL, "select $1::uuid, $2::interval")
    change(store, "_FINISH_CANCEL", "status = 'cancelling'", "status = 'issued'")


def give_back_whatever_the_status() -> None:
    """Give points and stock back as often as somebody finishes, with the event of the first time."""
    change(store, "_FINISH_CANCEL", "and status = 'cancelling'", "")
    change(store, "_PUT", "$7)", "$7) on conflict do nothing")


GUARDS: Final[dict[str, Removal]] = {
    "outbox-lease": forget_leases,
    "outbox-mark": mark_when_claimed,
    "outbox-order": forget_order,
    "idempotency-answer": forget_answers,
    "idempotency-lock": claim_without_lock,
    "stock-check": read_stock_before,
    "points-check": read_points_before,
    "cancel-record": forget_wishes,
    "cancel-once": give_back_whatever_the_status,
}

if __name__ == "__main__":
    sys.exit(run_without(GUARDS, main))
