"""Find the records of a block, and those that are none, without a Python step a byte."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Records:
    """Where the records of a block are, in their order; an empty line is none.

    Attributes:
        starts: where each begins, in the block's data.
        ends: where each ends, before its line end.
        lines: the number of each record's first line in the file.
        fields: how many fields each has; 0 for one with a fault.
        faults: why a record cannot be read, by its place in the arrays.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    lines: NDArray[np.int64]
    fields: NDArray[np.int64]
    faults: Mapping[int, str]
