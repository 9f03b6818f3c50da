"""Secrets that are made where they are missing, and never changed."""

import stat
from pathlib import Path

import jwt
import pytest

from deploy.secrets import OPERATOR_TOKEN, READERS, SecretMismatchError, ensure_secrets, main


def content(root: Path) -> dict[str, str]:
    """Return every file below a directory but the operator's token, which is made anew each time."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name != OPERATOR_TOKEN]
    return {str(path.relative_to(root)): path.read_text() for path in files}


def test_an_empty_directory_gets_each_readers_files_and_no_other(tmp_path: Path) -> None:
    """Every reader has exactly its own files, with one value per name, no two names with the same."""
    ensure_secrets(tmp_path)
    found = {reader: sorted(path.name for path in (tmp_path / reader).iterdir()) for reader in READERS}
    assert found == {reader: sorted(names) for reader, names in READERS.items()}
    values = {(Path(path).name, value) for path, value in content(tmp_path).items()}
    names = {name for wanted in READERS.values() for name in wanted} - {OPERATOR_TOKEN}
    assert len(values) == len({value for _, value in values}) == len(names)
    assert all(len(value) >= 32 for _, value in values)


def test_files_can_be_read_by_owner_and_group_and_changed_by_nobody(tmp_path: Path) -> None:
    """The mode of each file is 0440, the token's too."""
    ensure_secrets(tmp_path)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o440}


def test_a_second_run_changes_no_secret(tmp_path: Path) -> None:
    """What is there stays, and the run says that it made nothing."""
    ensure_secrets(tmp_path)
    before = content(tmp_path)
    assert ensure_secrets(tmp_path) == []
    assert content(tmp_path) == before


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_that_lost_its_files_gets_the_same_values_again(tmp_path: Path, reader: str) -> None:
    """A secret that another reader still has is copied: a run that was cut off, or a volume that was removed."""
    ensure_secrets(tmp_path)
    before = content(tmp_path)
    for path in (tmp_path / reader).iterdir():
        path.unlink()
    made = ensure_secrets(tmp_path)
    after = content(tmp_path)
    changed = {Path(path).name for path in before if after[path] != before[path]}
    assert after.keys() == before.keys()
    # Nobody else has these, so nobody disagrees.
    assert changed == {"mongo": {"mongo-key"}}.get(reader, set())
    assert sorted(path.name for path in made) == sorted(set(READERS[reader]) - {OPERATOR_TOKEN})


def test_values_that_differ_are_refused_and_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which of two passwords is right, only somebody who knows can say; the message names the file, not its content."""
    ensure_secrets(tmp_path)
    odd = tmp_path / "reward-store" / "reward-store-password"
    odd.unlink()
    odd.write_text("another")
    before = content(tmp_path)
    with pytest.raises(SecretMismatchError, match="reward-store-password"):
        ensure_secrets(tmp_path)
    assert main([str(tmp_path)]) == 1
    assert content(tmp_path) == before
    told = capsys.readouterr().err
    assert "reward-store-password" in told
    assert not [value for value in before.values() if value in told]


def test_the_operators_token_is_signed_with_the_secret_that_coupon_api_has(tmp_path: Path) -> None:
    """Coupon_api accepts reward_store as an operator, for a year from the latest run."""
    ensure_secrets(tmp_path)
    secret = (tmp_path / "coupon-api" / "token-secret").read_text()
    claims = jwt.decode((tmp_path / "reward-store" / OPERATOR_TOKEN).read_text(), secret, algorithms=["HS256"])
    assert (claims["sub"], claims["scope"]) == ("reward-store", "operator")
    assert claims["exp"] - claims["iat"] >= 365 * 86_400


def test_a_run_leaves_no_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure before a file is whole leaves neither the file nor a remnant, and the next run completes the rest."""
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", _fail)
        assert main([str(tmp_path)]) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert main([str(tmp_path)]) == 0


def test_arguments_that_name_no_one_directory_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The usage is told and nothing is written."""
    assert main([]) == 64
    assert "usage" in capsys.readouterr().err


def _fail(descriptor: int) -> None:
    raise OSError(28, f"no space left for {descriptor}")
