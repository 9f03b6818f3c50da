"""Masking a rendered line: no code gets through, and no number is taken for one."""

import json

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from loyalty.identifier import new_coupon_code
from runtime.logs import mask_line


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(min_value=-(10**17), max_value=10**17))
@example(0.2163123412341234, 1_764_000_000_000_000)
@example(1.2163123412341234e-05, -1_764_000_000_000_000)
def test_no_number_of_any_length_breaks_the_line(fraction: float, whole: int) -> None:
    """A fraction or a count with sixteen digits is not a coupon code, wherever it stands."""
    line = orjson.dumps({"a": fraction, "b": [whole, fraction], "c": {"d": whole}}) + b"\n"
    assert mask_line(line) == line


@pytest.mark.parametrize(
    "text",
    [
        *("{}", "code {}", "code {}, and more", "/v1/coupons/{}/redeem", "a:{}:b", "({})."),
        *("codes:\n{}\n", "codes:\t{}\tx", "\b{}", "\f{}", "\r\n{}", 'a "{}"', "C:\\{}", "C:\\n{}", "\x1f{}", "ö{}ß"),
        *("/v1%2Fcoupons%2F{}", "%20{}%20"),
    ],
)
def test_a_code_is_masked_wherever_it_stands_in_a_text(text: str) -> None:
    """Four characters stay, to be found by, also behind what JSON escapes with a letter; the line stays one of JSON."""
    for _ in range(50):
        code = new_coupon_code()
        line = mask_line(orjson.dumps({"text": text.format(code), "list": [code]}) + b"\n")
        assert code.encode() not in line
        assert json.loads(line)["list"] == [f"{code[:4]}…"]
