"""Names have one spelling each, codes are drawn from the whole alphabet, and logs see only a part."""

import pytest
from pydantic import TypeAdapter, ValidationError

from loyalty.identifier import (
    CouponCode,
    MemberId,
    RewardId,
    is_coupon_code,
    is_member_id,
    is_reward_id,
    mask_code,
    new_coupon_code,
    new_id,
)

CROCKFORD = set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")


@pytest.mark.parametrize("text", ["m-1", "m-a", "m-0-", "m-" + "a" * 39])
def test_member_id_in_its_spelling_is_accepted(text: str) -> None:
    """The pattern and the annotated type both take a member's name in its one spelling."""
    assert is_member_id(text)
    assert TypeAdapter(MemberId).validate_python(text) == text


@pytest.mark.parametrize(
    "text", ["", "m-", "M-1", "m-A", "m--1", "m-1\n", " m-1", "m-" + "a" * 40, "m-é", "rw-1", "m-\u0661"]
)
def test_member_id_in_another_spelling_is_refused(text: str) -> None:
    """Upper case, white space, a trailing newline, other scripts' digits and a 40th character are all refused."""
    assert not is_member_id(text)
    with pytest.raises(ValidationError):
        TypeAdapter(MemberId).validate_python(text)


@pytest.mark.parametrize(("text", "accepted"), [("rw-1", True), ("rw-", False), ("m-1", False), ("rw-1\n", False)])
def test_reward_id_has_one_spelling(text: str, accepted: bool) -> None:
    """The pattern and the annotated type agree on a reward's name."""
    assert is_reward_id(text) is accepted
    if accepted:
        assert TypeAdapter(RewardId).validate_python(text) == text
    else:
        with pytest.raises(ValidationError):
            TypeAdapter(RewardId).validate_python(text)


@pytest.mark.parametrize("letter", "ILOUa-\u0660")
def test_coupon_code_with_a_letter_outside_the_alphabet_is_refused(letter: str) -> None:
    """Look-alikes, lower case and other digits are no spelling of a code."""
    assert not is_coupon_code("0" * 15 + letter)
    with pytest.raises(ValidationError):
        TypeAdapter(CouponCode).validate_python("0" * 15 + letter)


@pytest.mark.parametrize("text", ["", "0" * 15, "0" * 17, "0" * 16 + "\n"])
def test_coupon_code_of_another_length_is_refused(text: str) -> None:
    """A code has sixteen characters, and a trailing newline is one too many."""
    assert not is_coupon_code(text)


def test_new_coupon_codes_are_well_formed_distinct_and_use_the_whole_alphabet() -> None:
    """A thousand codes are all valid and all different, and every one of the 32 characters appears."""
    codes = {new_coupon_code() for _ in range(1_000)}

    assert len(codes) == 1_000
    assert all(is_coupon_code(code) for code in codes)
    assert set("".join(codes)) == CROCKFORD


def test_masked_code_keeps_four_characters() -> None:
    """What a log shows of a code is too little to spend it."""
    assert mask_code("ABCD0123456789XY") == "ABCD…"


def test_new_ids_are_version_seven_distinct_and_sorted_by_time() -> None:
    """Ids are UUIDv7, never twice the same, and their leading 48 bits never go back."""
    ids = [new_id() for _ in range(1_000)]

    assert {each.version for each in ids} == {7}
    assert len(set(ids)) == 1_000
    milliseconds = [each.int >> 80 for each in ids]
    assert milliseconds == sorted(milliseconds)
