"""Free ports: whoever is given one listens a moment later, and until then nobody else may get it."""

import os

import pytest

from sandbox.servers.address import free_port


def test_port_is_not_given_twice_before_anybody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not within a process, and not by one that was started beside it."""
    mine = [free_port() for _ in range(100)]
    beside = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: beside)
    others = [free_port() for _ in range(100)]
    assert len({*mine, *others}) == 200
