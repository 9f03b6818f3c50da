"""Members with points and rewards with stock, as they are before the first request."""

import asyncpg

from sandbox.journal import Seed, SeededReward
from sandbox.links import GUEST

_GUEST_POINTS = 10_000
_TIMEOUT_SECONDS = 30.0

REWARDS = {
    "rw-coffee": ("A coffee", SeededReward(40, 100_000, 300, "EUR", 30)),
    "rw-cinema": ("A cinema ticket", SeededReward(220, 100_000, 1_200, "EUR", 90)),
    "rw-breakfast": ("A breakfast for two", SeededReward(350, 100_000, 2_400, "EUR", 60)),
    "rw-book": ("A book voucher", SeededReward(150, 100_000, 1_000, "EUR", 365)),
    "rw-train": ("A day by train", SeededReward(600, 100_000, 4_900, "CHF", 180)),
    "rw-balloon": ("A balloon ride, of which there are few", SeededReward(900, 12, 19_000, "EUR", 365)),
}


def make_seed(members: int, points: int) -> Seed:
    """Return members `m-1` to `m-<members>` with the same points each, and the rewards.

    The rewards are bought so that some members run out of points and the balloon rides run out early: both answers
    belong to ordinary traffic.
    """
    return Seed(
        points={f"m-{number}": points for number in range(1, members + 1)},
        rewards={reward_id: reward for reward_id, (_, reward) in REWARDS.items()},
    )


async def plant(seed: Seed, rewards_url: str) -> None:
    """Put a seed, and the guest, into the empty database `rewards`, in one transaction.

    Args:
        seed: what to put there; its rewards are some of `REWARDS`.
        rewards_url: the database's URL, for a role that owns the tables.

    Raises:
        asyncpg.UniqueViolationError: a member or a reward is there already.
    """
    connection = await asyncpg.connect(rewards_url, timeout=_TIMEOUT_SECONDS, command_timeout=_TIMEOUT_SECONDS)
    try:
        async with connection.transaction():
            await connection.copy_records_to_table(
                "members", columns=("member_id", "points"), records=[*seed.points.items(), (GUEST, _GUEST_POINTS)]
            )
            await connection.executemany(
                "insert into rewards (reward_id, title, points_cost, stock, value_cents, currency, coupon_days) "
                "values ($1, $2, $3, $4, $5, $6, $7)",
                [
                    (
                        reward_id,
                        REWARDS[reward_id][0],
                        reward.points_cost,
                        reward.stock,
                        reward.value_cents,
                        reward.currency,
                        reward.coupon_days,
                    )
                    for reward_id, reward in seed.rewards.items()
                ],
            )
    finally:
        await connection.close()
