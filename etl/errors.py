"""Why a file is not loaded, or not to its end."""


class FileRefusedError(ValueError):
    """Say that a file cannot be loaded as it is, whoever tries and however often; nothing of it was loaded by this try.

    The text names the rule and where it was broken, and shows nothing of the file's content unescaped.
    """


class FileChangedError(FileRefusedError):
    """Say that a file is not what it was when it was first read through: it grew, was cut, or was written to."""
