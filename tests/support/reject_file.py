"""What a reject file holds, line by line, read without the reader of the ETL."""

import base64
import json
from pathlib import Path

from etl.coupon_batch import Reject


def rejects_in(path: Path) -> list[Reject]:
    """Return the rows of a reject file in the order of their lines, each as often as it is there.

    A last line that was cut off is left out.
    """
    lines = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    rows = [Reject(line=one["line"], raw=base64.b64decode(one["raw"]), reason=one["reason"]) for one in lines]
    return sorted(rows, key=lambda row: row.line)
