"""What a Kafka consumer's thread hands over: batches of records, and partitions that need a position."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class KafkaReadError(Exception):
    """Say that reading ended though nobody asked for it; what ended it is the cause."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Consecutive records of one partition, read under one generation of its assignment.

    Offsets rise strictly from `first_offset` to `next_offset` - 1 and may have gaps (transactions, compaction).
    """

    partition: int
    generation: int
    first_offset: int
    next_offset: int
    records: int
    bytes: int
    content: T


@dataclass(frozen=True, slots=True)
class Assigned:
    """Partitions that stand still until each is placed, with their generations.

    `is_out_of_range`: the broker no longer has, or does not yet have, the offset they were placed at before.
    """

    generations: Mapping[int, int]
    is_out_of_range: bool = False
