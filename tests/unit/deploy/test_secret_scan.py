"""The scan finds each kind of secret, knows what is none, and finds nothing in this repository."""

import subprocess
from pathlib import Path

import pytest

from deploy.secret_scan import EXAMPLE, KINDS, main, scan, secrets_in

ROOT = Path(__file__).parents[3]

# In two halves each, or this file would hold what it is about.
EXAMPLES = {
    "private key": ("-----BEGIN RSA PRIV", "ATE KEY-----"),
    "JSON web token": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJt", "LTEifQ.0123456789abcdefghijklmnop"),
    "AWS key": ("AKIA", "0123456789ABCDEF"),
    "GitHub token": ("ghp_", "0123456789abcdefghijklmnopqrstuvwxyz"),
    "GitLab token": ("glpat-", "0123456789abcdefghij"),
    "Google key": ("AIza", "0123456789abcdefghijklmnopqrstuvwxy"),
    "Slack token": ("xoxb-", "0123456789-abcdef"),
    "Stripe key": ("sk_live_", "0123456789abcdefghij"),
    "package index token": ("pypi-", "AgEI" + "0123456789" * 6),
    "Salesforce session": ("00D0123456789ab!", "0123456789" * 9),
    "password in a URL": ("postgresql://user:", "very-secret-word@db.internal/coupons"),
}
INNOCENT = (
    "-----BEGIN PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----",
    "postgresql://user@db/coupons",
    "postgresql://user:{password}@db/coupons",
    "postgresql://user:$PASSWORD_OF_IT@db/coupons",
    "http://127.0.0.1:8080/v1/rewards",
    "--hash=sha256:83490def1f723413db5096591f7609ac52544805be93849170088ed04f5a2e0b",
    "01890a5d-ac96-774b-bcce-b302099a8057",
    "password = 'postgres'",
    "eyJub3RhLnRva2Vu",
)


def test_each_kind_of_secret_is_found_and_named() -> None:
    """Every kind has an example, which is found under its name, also in the middle of a line."""
    assert EXAMPLES.keys() == KINDS.keys()
    for kind, halves in EXAMPLES.items():
        assert list(secrets_in(f'first\nvalue = "{"".join(halves)}" # here\n')) == [(2, kind)]


def test_what_only_resembles_a_secret_is_none() -> None:
    """Public keys, addresses without a password, placeholders, hashes and ids are let pass, and so is a marked line."""
    assert list(secrets_in("\n".join(INNOCENT))) == []
    assert list(secrets_in(f"{''.join(EXAMPLES['AWS key'])}  # {EXAMPLE}")) == []


def test_files_that_git_ignores_are_not_read(tmp_path: Path) -> None:
    """What is committed, or could be next, is read; what is ignored cannot leave the machine."""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True, timeout=10)
    secret = "".join(EXAMPLES["private key"])
    (tmp_path / ".gitignore").write_text("ignored\n")
    for name in ("ignored", "new", "b\xe9te"):
        (tmp_path / name).write_bytes(b"\xff\0\n" + secret.encode())
    assert sorted(scan(tmp_path)) == ["b\xe9te:2: private key", "new:2: private key"]


def test_this_repository_holds_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """The command ends with 0 and says so."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git repository")
    assert main() == 0, capsys.readouterr().err
    assert capsys.readouterr().out == "no secrets in committed files\n"
