"""Equal log lines, damped."""

import pytest

from runtime.log_damper import LogDamper


def test_topic_is_news_once_in_ten_seconds_unless_it_was_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each topic has its own time; what was forgotten is news at once."""
    now = 1_000.0
    monkeypatch.setattr("runtime.log_damper.time.monotonic", lambda: now)
    damper = LogDamper()
    assert [damper.is_news("a"), damper.is_news("a"), damper.is_news("b")] == [True, False, True]
    now += 9.9
    assert not damper.is_news("a")
    now += 0.2
    assert damper.is_news("a")
    damper.forget("a")
    damper.forget("never said")
    assert damper.is_news("a")
