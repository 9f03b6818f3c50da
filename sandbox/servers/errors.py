"""Errors of the embedded servers."""


class ServerError(RuntimeError):
    """A server could not be started, stopped or controlled."""


class ServerUnavailableError(ServerError):
    """This machine has no program for the server, and no address of another one was given."""


class NotOursError(ServerError):
    """A server that was named by an environment variable is used, never stopped, restarted or frozen."""
