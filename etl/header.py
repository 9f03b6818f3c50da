"""What the first record of a file says: which column is which."""

from dataclasses import dataclass
from typing import Final

COLUMNS: Final = ("code", "member_id", "reward_id", "value_cents", "currency", "issued_at", "expires_at")
"""What a file of coupons holds: each of them once, in any order, and nothing else."""


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a file in its order; a permutation of `COLUMNS`."""

    columns: tuple[str, ...]
