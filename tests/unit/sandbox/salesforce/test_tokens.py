"""Tokens: valid for their time, until they are revoked, and bounded in number."""

from sandbox.salesforce import tokens
from sandbox.salesforce.tokens import ConnectedApp, Tokens


class Clock:
    """A time that tests set."""

    time = 100.0

    def __call__(self) -> float:
        """Return it."""
        return self.time


def test_a_token_is_valid_until_its_time_is_over() -> None:
    """It is valid a moment before its lifetime ends, and not at its end."""
    clock = Clock()
    held = Tokens(10.0, clock)
    token = held.issue()
    clock.time = 109.9
    assert held.is_valid(token)
    clock.time = 110.0
    assert not held.is_valid(token)


def test_revoking_ends_all_tokens_of_now_alone() -> None:
    """Those issued before are invalid, one issued after it is valid."""
    held = Tokens(10.0, Clock())
    old = [held.issue(), held.issue()]
    held.revoke_all()
    new = held.issue()
    assert [held.is_valid(token) for token in (*old, new, "made up", "")] == [False, False, True, False, False]


def test_the_oldest_token_goes_when_there_are_too_many() -> None:
    """With one more than the limit the first is forgotten, and all later ones are valid."""
    held = Tokens(10.0, Clock())
    issued = [held.issue() for _ in range(tokens.TOKENS_MAX + 1)]
    assert not held.is_valid(issued[0])
    assert all(held.is_valid(token) for token in issued[1:])


def test_an_app_is_known_by_both_of_its_words() -> None:
    """Neither the right id nor the right secret alone is enough, and the secret is not shown."""
    app = ConnectedApp("id", "words of ü secret")
    assert app.knows("id", "words of ü secret")
    assert not any(app.knows(*given) for given in [("id", ""), ("", "words of ü secret"), ("words of ü secret", "id")])
    assert "words" not in repr(app)
