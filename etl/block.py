"""Whole records of a file, cut into blocks: what one worker loads in one transaction."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Block:
    r"""A run of whole records.

    Attributes:
        data: the records with their line ends; the file's last one may have none.
        byte_start: where it begins in the file, after decompression.
        first_line: the number of its first line; the file's first line is 1. A line ends with `\\n`, also where that is
            inside of a quoted field, so that an editor and `sed -n` count alike.
        lines: how many lines it has.
    """

    data: bytes = field(repr=False)
    byte_start: int
    first_line: int
    lines: int

    @property
    def byte_end(self) -> int:
        """Where the next block begins."""
        return self.byte_start + len(self.data)

    @property
    def next_line(self) -> int:
        """The number of the line that the next block begins with."""
        return self.first_line + self.lines
