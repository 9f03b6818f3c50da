"""Redeem at a running system under keys that a test chooses, and hold what was promised against what is stored."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

import httpx
import orjson

from sandbox.holdings import CouponRow, Holdings, RedemptionRow, read_holdings
from sandbox.instance import Service
from sandbox.system import System
from tests.support.eventually import eventually
from tests.support.judgement import Judgement
from tests.support.ledger import Ledger

REWARD: Final = "rw-coffee"
_REQUEST_SECONDS: Final = 20.0


class OrderBook:
    """Redeem one reward through a running system; each attempt and each answer is in the ledger before it is used.

    Args:
        system: whose reward_store is asked.
        ledger: open; it takes nothing but the orders of this book.
    """

    def __init__(self, system: System, ledger: Ledger) -> None:
        self._system = system
        self._ledger = ledger

    async def redeem(self, key: str, *, member_id: str = "m-1", token: str | None = None) -> httpx.Response:
        """Ask once.

        Raises:
            httpx.HTTPError, TimeoutError: No whole answer came.
        """
        unit_id, content = f"{member_id}/{key}", [member_id, REWARD]
        self._ledger.attempt(unit_id, content)
        answer = await self._system.client.request(
            "POST",
            f"{self._system.base_url(Service.REWARD_STORE)}/v1/redemptions",
            headers={
                "authorization": f"Bearer {token or self._system.token(member_id)}",
                "content-type": "application/json",
                "idempotency-key": key,
            },
            content=orjson.dumps({"reward_id": REWARD}),
            timeout=_REQUEST_SECONDS,
        )
        if answer.status_code == HTTPStatus.CREATED:
            self._ledger.acknowledge(unit_id, content)
        return answer

    async def redeem_told(self, key: str, *, member_id: str = "m-1", seconds: float = 60) -> httpx.Response:
        """Ask again and again under one key until it is redeemed; return that answer."""
        told: list[httpx.Response] = []

        async def is_told() -> bool:
            try:
                answer = await self.redeem(key, member_id=member_id)
            except (httpx.HTTPError, TimeoutError):
                return False
            if answer.status_code == HTTPStatus.CREATED:
                told.append(answer)
            return bool(told)

        await eventually(is_told, seconds=seconds, pause_seconds=0.1)
        return told[0]

    async def judge_redemptions(self) -> Judgement:
        """Hold the ledger against the redemptions (L1 to L4)."""
        holdings = await self._holdings()
        return self._ledger.judge(_units(holdings, holdings.redemptions))

    async def judge_coupons(self) -> Judgement:
        """Hold the ledger against the coupons, at the other end of the flow (L1 to L4)."""
        holdings = await self._holdings()
        return self._ledger.judge(_units(holdings, holdings.coupons))

    async def wait_coupons(self, count: int, *, seconds: float = 60) -> None:
        """Wait until so many coupons have arrived."""

        async def have_arrived() -> bool:
            return len((await self._holdings()).coupons) >= count

        await eventually(have_arrived, seconds=seconds, pause_seconds=0.1)

    async def _holdings(self) -> Holdings:
        return await read_holdings(self._system.rewards_url, self._system.coupons_url)


def _units(holdings: Holdings, rows: list[RedemptionRow] | list[CouponRow]) -> Iterator[tuple[str, object]]:
    """Yield each row by the key that asked for it; one that no key asked for goes by its redemption."""
    keys = {key.redemption_id: f"{key.member_id}/{key.key}" for key in holdings.keys}
    for row in rows:
        yield keys.get(row.redemption_id or "", f"redemption {row.redemption_id}"), [row.member_id, row.reward_id]
