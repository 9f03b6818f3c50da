"""Bearer tokens: good ones name the caller, all others are one and the same 401."""

from __future__ import annotations

import os
from datetime import datetime, tzinfo
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.requests import Request
from structlog.testing import capture_logs

from runtime.auth import Principal, TokenVerifier, member_of, operator_of, principal_of, sign_token
from runtime.problem import Problem
from runtime.settings import AuthSettings

SECRET = "s" * 40
NOW = 1_800_000_000.0


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """One clock for our code and for the library's own look at expiry."""
    clock = Clock()

    class _Time(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> _Time:
            return cls.fromtimestamp(clock.now, tz)

    monkeypatch.setattr("jwt.api_jwt.datetime", _Time)
    return clock


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """A file with the secret."""
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    return file


def _verifier(file: Path, clock: Clock, **settings: object) -> TokenVerifier:
    return TokenVerifier(AuthSettings.model_validate({"secret_file": file, **settings}), clock=clock)


def _key_pair() -> tuple[str, str]:
    """Return a new private key and its public one, as text."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private_text = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_text = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private_text.decode(), public_text.decode()


def _bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


def _code(verifier: TokenVerifier, authorization: bytes) -> str:
    with pytest.raises(Problem) as caught:
        verifier.verify(authorization)
    assert caught.value.status == 401
    assert caught.value.headers == {"www-authenticate": "Bearer"}
    return caught.value.code


def test_good_token_names_its_subject_and_scope(secret_file: Path, clock: Clock) -> None:
    """A signed, unexpired token gives the caller; the scheme may be in any case."""
    token = sign_token("m-1", "member", SECRET, clock=clock)
    verifier = _verifier(secret_file, clock)
    assert verifier.verify(_bearer(token)) == Principal("m-1", "member")
    assert verifier.verify(b"bearer " + token.encode()) == Principal("m-1", "member")


def test_remembered_token_is_refused_once_it_has_expired(secret_file: Path, clock: Clock) -> None:
    """The memory of a good token ends with the token, leeway included."""
    verifier = _verifier(secret_file, clock, leeway_seconds=5)
    header = _bearer(sign_token("m-1", "member", SECRET, lifetime_seconds=60, clock=clock))
    verifier.verify(header)
    clock.now = NOW + 64
    verifier.verify(header)
    clock.now = NOW + 66
    assert _code(verifier, header) == "invalid-token"


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"exp": None}, id="no expiry"),
        pytest.param({"exp": "soon"}, id="expiry no number"),
        pytest.param({"exp": 1e400}, id="expiry infinite"),
        pytest.param({"scope": "admin"}, id="unknown scope"),
        pytest.param({"scope": ["member"]}, id="scope a list"),
        pytest.param({"sub": 7}, id="subject a number"),
        pytest.param({"sub": "m-1\n"}, id="subject with a line end"),
        pytest.param({"sub": "x" * 65}, id="subject too long"),
        pytest.param({"nbf": NOW + 100}, id="not yet"),
        pytest.param({"aud": "other"}, id="for somebody else"),
    ],
)
def test_token_with_wrong_claims_is_refused(secret_file: Path, clock: Clock, claims: dict[str, object]) -> None:
    """Whatever claim is missing or wrong, the answer is the same."""
    payload = {"sub": "m-1", "scope": "member", "exp": NOW + 60, **claims}
    token = jwt.encode({name: value for name, value in payload.items() if value is not None}, SECRET)
    assert _code(_verifier(secret_file, clock), _bearer(token)) == "invalid-token"


@pytest.mark.parametrize(
    "authorization",
    [b"", b"Bearer", b"Bearer ", b"Basic bTpw", b"Bearer a.b.c", b"Bearer \xff\xfe", b"Bearer " + b"x" * 5000],
)
def test_header_that_holds_no_token_is_refused(secret_file: Path, clock: Clock, authorization: bytes) -> None:
    """Another scheme, an empty or a broken token are refused without a traceback."""
    assert _code(_verifier(secret_file, clock), authorization) == "invalid-token"


def test_token_of_another_key_or_algorithm_is_refused(secret_file: Path, clock: Clock) -> None:
    """A foreign signature, none at all, and a longer hash than was agreed are refused."""
    verifier = _verifier(secret_file, clock)
    payload = {"sub": "m-1", "scope": "operator", "exp": NOW + 60}
    for token in (
        jwt.encode(payload, "t" * 40),
        jwt.encode(payload, "", algorithm="none"),
        jwt.encode(payload, "s" * 64, algorithm="HS512"),
    ):
        assert _code(verifier, _bearer(token)) == "invalid-token"


def test_good_token_has_one_spelling(secret_file: Path, clock: Clock) -> None:
    """Padding, signs between its letters and spaces around it make a token another one, which is refused."""
    verifier = _verifier(secret_file, clock)
    token = sign_token("m-1", "member", SECRET, clock=clock)
    assert verifier.verify(_bearer(token)).subject == "m-1"
    for other in (f"{token}=", f"{token}!", f" {token}", f"{token} ", token.replace(".", "=.", 1), f"{token}\n"):
        assert _code(verifier, _bearer(other)) == "invalid-token"


def test_audience_and_issuer_are_required_when_set(secret_file: Path, clock: Clock) -> None:
    """With an audience and an issuer in the settings a token must bear both."""
    verifier = _verifier(secret_file, clock, audience="lp", issuer="idp")
    good = sign_token("m-1", "member", SECRET, claims={"aud": "lp", "iss": "idp"}, clock=clock)
    assert verifier.verify(_bearer(good)).subject == "m-1"
    assert _code(verifier, _bearer(sign_token("m-1", "member", SECRET, clock=clock))) == "invalid-token"


def test_public_key_verifies_what_the_private_one_signed(tmp_path: Path, clock: Clock) -> None:
    """RS256 needs the public key alone, and takes no token that was signed with that public key as a secret."""
    private_text, public_text = _key_pair()
    file = tmp_path / "public.pem"
    file.write_text(public_text)
    verifier = TokenVerifier(AuthSettings(algorithm="RS256", public_key_file=file), clock=clock)
    token = sign_token("ops", "operator", private_text, algorithm="RS256", clock=clock)
    assert verifier.verify(_bearer(token)) == Principal("ops", "operator")
    assert _code(verifier, _bearer(sign_token("ops", "operator", SECRET, clock=clock))) == "invalid-token"


def test_new_key_in_the_file_is_used_and_forgets_old_tokens(secret_file: Path, clock: Clock) -> None:
    """A rotated secret needs no restart: within a second the old tokens are refused, the remembered ones too."""
    verifier = _verifier(secret_file, clock)
    old = _bearer(sign_token("m-1", "member", SECRET, clock=clock))
    verifier.verify(old)
    secret_file.write_text("n" * 40)
    os.utime(secret_file, (NOW, NOW))
    clock.now += 1.5
    assert _code(verifier, old) == "invalid-token"
    assert verifier.verify(_bearer(sign_token("m-1", "member", "n" * 40, clock=clock))).subject == "m-1"


def test_key_file_that_vanishes_leaves_the_last_key_in_use(secret_file: Path, clock: Clock) -> None:
    """While the file cannot be read, or holds too short a secret, the last good key serves."""
    verifier = _verifier(secret_file, clock)
    secret_file.write_text("short")
    clock.now += 1.5
    assert verifier.verify(_bearer(sign_token("m-1", "member", SECRET, clock=clock))).subject == "m-1"
    secret_file.unlink()
    clock.now += 1.5
    assert verifier.verify(_bearer(sign_token("m-2", "member", SECRET, clock=clock))).subject == "m-2"


def test_key_that_cannot_be_used_is_told_once_for_each_try(secret_file: Path, clock: Clock) -> None:
    """A rotation that failed leaves one error line with its reason, not one a second, and nothing of the secret."""
    verifier = _verifier(secret_file, clock)
    token = _bearer(sign_token("m-1", "member", SECRET, clock=clock))

    def look() -> list[str]:
        with capture_logs() as lines:
            for _ in range(3):
                clock.now += 2
                verifier.verify(token)
        assert {(line["event"], line["log_level"]) for line in lines} <= {("Token key not replaced", "error")}
        return [line["error"] for line in lines]

    assert look() == []
    secret_file.write_text("short")
    assert look() == ["an HS256 secret needs at least 32 bytes"]
    secret_file.write_bytes(b"\xff" * 50)
    assert look() == ["UnicodeDecodeError"]
    secret_file.unlink()
    assert ["No such file" in error for error in look()] == [True]
    secret_file.write_text(SECRET)
    assert look() == []
    secret_file.unlink()
    assert len(look()) == 1


def test_clock_set_back_does_not_put_off_the_look_at_the_file(secret_file: Path, clock: Clock) -> None:
    """A new key is in force within a second though the time of day goes back by an hour."""
    verifier = _verifier(secret_file, clock)
    clock.now -= 3_600
    verifier.verify(_bearer(sign_token("m-1", "member", SECRET, clock=clock)))
    secret_file.write_text("n" * 40)
    clock.now += 1
    assert verifier.verify(_bearer(sign_token("m-1", "member", "n" * 40, clock=clock))).subject == "m-1"


def test_unusable_public_key_in_the_file_leaves_the_last_one_in_use(tmp_path: Path, clock: Clock) -> None:
    """A bad rotation costs nobody a request: nonsense, and the private key itself, are not taken."""
    private_text, public_text = _key_pair()
    file = tmp_path / "public.pem"
    file.write_text(public_text)
    verifier = TokenVerifier(AuthSettings(algorithm="RS256", public_key_file=file), clock=clock)
    for number, text in enumerate(("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----", private_text)):
        file.write_text(text)
        clock.now += 1.5
        token = sign_token(f"m-{number}", "member", private_text, algorithm="RS256", clock=clock)
        assert verifier.verify(_bearer(token)).subject == f"m-{number}"


def test_memory_is_bounded(secret_file: Path, clock: Clock) -> None:
    """More tokens than the cache holds push the oldest out; a size of 0 remembers none."""
    verifier = _verifier(secret_file, clock, cache_size=3)
    for number in range(10):
        verifier.verify(_bearer(sign_token(f"m-{number}", "member", SECRET, clock=clock)))
    assert verifier.statistics().remembered == 3
    forgetful = _verifier(secret_file, clock, cache_size=0)
    forgetful.verify(_bearer(sign_token("m-1", "member", SECRET, clock=clock)))
    assert forgetful.statistics().remembered == 0


def test_short_secret_is_refused_at_the_start(tmp_path: Path, clock: Clock) -> None:
    """An HS256 secret below 32 bytes is an error before anything is served."""
    file = tmp_path / "secret"
    file.write_text("short")
    with pytest.raises(ValueError, match="32 bytes"):
        _verifier(file, clock)


def test_scope_decides_who_may() -> None:
    """A member is no operator, an operator no member, and a request nobody verified has no caller at all."""
    member = Request({"type": "http", "principal": Principal("m-1", "member")})
    operator = Request({"type": "http", "principal": Principal("ops", "operator")})
    assert (member_of(member).subject, operator_of(operator).subject) == ("m-1", "ops")
    with pytest.raises(Problem, match="403"):
        operator_of(member)
    with pytest.raises(Problem, match="403"):
        member_of(operator)
    with pytest.raises(Problem, match="401"):
        principal_of(Request({"type": "http"}))


def test_subject_that_would_be_refused_is_not_signed() -> None:
    """The sandbox cannot make a token that no service takes."""
    with pytest.raises(ValueError, match="subject"):
        sign_token("m 1", "member", SECRET)
