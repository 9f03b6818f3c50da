"""What can go wrong in the sandbox itself, besides what it does wrong on command."""


class AppliedLogError(RuntimeError):
    """The log of what was applied cannot be used; the message says why."""


class ControlError(RuntimeError):
    """The control interface refused a request; the message is its answer."""


class QueryError(ValueError):
    """A query is refused.

    Attributes:
        code: of Salesforce, such as MALFORMED_QUERY.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)
