"""What can end a try, or the consumer, besides the errors of its servers."""

from collections.abc import Iterable


class OwnershipLostError(Exception):
    """Partitions do not stand where this member left them: another one has stored records of theirs since.

    Attributes:
        partitions: which ones.
    """

    def __init__(self, partitions: Iterable[int]) -> None:
        self.partitions = frozenset(partitions)
        super().__init__(f"partitions {sorted(self.partitions)} were moved by another member")


class RowRefusedError(Exception):
    """Postgres will never take a row of some work, whenever it is asked; nothing of that work was stored.

    Attributes:
        error_class: The name of Postgres' error.
        error_detail: What refused the row, without the row's content.
    """

    def __init__(self, error_class: str, error_detail: str) -> None:
        self.error_class = error_class
        self.error_detail = error_detail
        super().__init__(f"{error_class}: {error_detail}")


class OffsetOutOfRangeError(Exception):
    """A stored offset is not in its partition, though the topic is the same: records are gone that nobody has read.

    Going on would skip them in silence, so the process ends. An operator decides with `reset-offsets` where to go on.
    """


class PoisonFloodError(Exception):
    """So many of the last records cannot be stored that the consumer stands still for a while."""
