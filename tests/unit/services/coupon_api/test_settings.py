"""Settings that contradict each other are refused, each with its reason."""

import pytest
from pydantic import ValidationError

from runtime.settings import AuthSettings, PostgresSettings
from services.coupon_api.settings import CouponApiSettings, IdempotencySettings


def test_run_smaller_than_one_statement_is_refused() -> None:
    """A clean-up run must have room for a statement."""
    with pytest.raises(ValidationError, match="rows_per_statement is greater than rows_per_run"):
        IdempotencySettings(rows_per_statement=11, rows_per_run=10)


def test_keys_are_kept_for_seven_days_unless_told_otherwise() -> None:
    """The promise of the API's documents is the default."""
    assert IdempotencySettings().keep_seconds == 7 * 24 * 3_600


@pytest.mark.parametrize(("seconds", "is_accepted"), [(30.0, True), (30.1, False)])
def test_database_is_waited_for_at_most_thirty_seconds(
    tmp_path_factory: pytest.TempPathFactory, seconds: float, *, is_accepted: bool
) -> None:
    """Thirty seconds are the most that can be set, as in the original."""
    secret_file = tmp_path_factory.mktemp("settings") / "secret"
    secret_file.write_text("0123456789abcdef" * 2)
    postgres = PostgresSettings(database="coupons", user="coupon_api")
    auth = AuthSettings(secret_file=secret_file)
    if is_accepted:
        assert CouponApiSettings(postgres=postgres, auth=auth, startup_seconds=seconds).startup_seconds == seconds
    else:
        with pytest.raises(ValidationError, match="startup_seconds is greater than 30"):
            CouponApiSettings(postgres=postgres, auth=auth, startup_seconds=seconds)
