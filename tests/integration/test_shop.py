"""The shop's verdict: what is missing, and books that do not add up, are told by their rules."""

from pathlib import Path

from sandbox.servers import KafkaServer, PostgresServer
from tests.support.judgement import Rule
from tests.support.ledger import Ledger
from tests.support.shop import open_shop


async def test_shop_that_lost_an_order_or_a_point_is_told_apart_from_one_in_order(
    postgres: PostgresServer, kafka: KafkaServer, tmp_path: Path
) -> None:
    """An order that is nowhere breaks L1 and is not what its member was told (L4); so does a point that is missing."""
    async with open_shop(postgres, kafka, tmp_path) as shop:
        with Ledger(tmp_path) as ledger:
            assert (await shop.judge(ledger, {})).is_ok
            ledger.attempt("m-1/order-1", ["m-1", "rw-tea"])
            ledger.acknowledge("m-1/order-1", ["m-1", "rw-tea"])
            lost = await shop.judge(ledger, {"m-1/order-1": "some redemption"})
            await shop.fetch("update members set points = points - 1 where member_id = 'm-7'")
            books = await shop.judge(ledger, {})
    assert lost.failed(Rule.NOTHING_LOST)
    assert lost.differences[Rule.RIGHT_CONTENT] == ("m-1/order-1 is not what its member was told",)
    assert books.differences[Rule.RIGHT_CONTENT] == ("m-7 has 999999 points",)
