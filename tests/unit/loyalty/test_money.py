"""Money is integer cents within bounds and a currency's three letters."""

import pytest

from loyalty.money import MAX_CENTS, Money


@pytest.mark.parametrize("cents", [0, 1, MAX_CENTS])
def test_amount_within_the_bounds_is_kept(cents: int) -> None:
    """Both bounds belong to the range."""
    assert Money(cents, "EUR").cents == cents


@pytest.mark.parametrize("cents", [-1, MAX_CENTS + 1])
def test_amount_outside_the_bounds_is_refused(cents: int) -> None:
    """One below and one above the range are refused."""
    with pytest.raises(ValueError, match="cents"):
        Money(cents, "EUR")


@pytest.mark.parametrize("cents", [True, 1.0, "1", None])
def test_amount_that_is_no_integer_is_refused(cents: object) -> None:
    """A bool, a float, a text and nothing are no cents."""
    with pytest.raises(TypeError, match="cents"):
        Money(cents, "EUR")  # type: ignore[arg-type]  # the mistake is the subject of the test


@pytest.mark.parametrize("currency", ["", "EU", "EURO", "eur", "EUR\n", "E1R", "ÄUR"])
def test_currency_of_another_shape_is_refused(currency: str) -> None:
    """Only three capital Latin letters are the shape of an ISO 4217 code."""
    with pytest.raises(ValueError, match="currency"):
        Money(1, currency)
