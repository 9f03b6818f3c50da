"""Why a file is not loaded, or not to its end."""

from collections.abc import Mapping


class FileRefusedError(ValueError):
    """Say that a file cannot be loaded as it is, whoever tries and however often.

    The text names the rule and where it was broken, and shows nothing of the file's content unescaped.
    """


class FileChangedError(FileRefusedError):
    """Say that a file is not what it was when it was first read through: it grew, was cut, or was written to.

    What was loaded before that was seen is as the file was, and stays.
    """


class RowRejectedError(ValueError):
    """Say that a row is bad, and that a bad row ends the load.

    Attributes:
        line: the row's first line in the file.
        reason: the rule that it breaks, never its value.
    """

    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        self.reason = reason
        super().__init__(f"line {line}: {reason}")


class TooManyRejectsError(ValueError):
    """Say that more rows of a file are bad than may be."""

    def __init__(self, most: int, line: int | None = None) -> None:
        self.most = most
        self.line = line
        super().__init__(f"more than {most} rows are bad" + (f", at or before line {line}" if line else ""))


class OtherRuleError(FileRefusedError):
    """Say that a file was begun with another rule for duplicates: what is loaded would not fit what is to come."""

    def __init__(self, begun_with: str, asked_for: str) -> None:
        self.begun_with = begun_with
        self.asked_for = asked_for
        super().__init__(f"it was begun with duplicates={begun_with}, and cannot go on with duplicates={asked_for}")


class FileBusyError(RuntimeError):
    """Say that another process loads a file of this content now, or keeps its rejects."""

    def __init__(self) -> None:
        super().__init__("another process loads a file of this content now")


class RangeTakenError(RuntimeError):
    """Say that a part of a batch was loaded already, in a batch with other borders; nothing of this one was loaded.

    Whoever asks the ledger anew finds what is left.
    """

    def __init__(self, byte_start: int, byte_end: int) -> None:
        self.byte_start = byte_start
        self.byte_end = byte_end
        super().__init__(f"a part of the bytes {byte_start} to {byte_end} was loaded in a batch with other borders")


class DuplicateRowError(ValueError):
    """Say that a batch was not loaded, because codes of it are taken.

    Attributes:
        origins: by the line of each such row, at most a hundred of them, where its code is: `line 7` of the same file,
            or what else brought it, such as `event` or another file's `etl:3`.
    """

    def __init__(self, origins: Mapping[int, str]) -> None:
        self.origins = origins
        text = "; ".join(f"line {line}: its code is there from {origin}" for line, origin in sorted(origins.items()))
        super().__init__(text)


class WorkerLostError(RuntimeError):
    """Say that a worker of the pool ended before its time; the batch that it had in hand, if any, was rolled back."""

    def __init__(self, line: int | None = None) -> None:
        where = "between two batches" if line is None else f"with the batch of line {line}"
        super().__init__(f"a worker was lost {where}")
