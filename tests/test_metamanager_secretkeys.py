"""The file of keys: where it is, that it is private, and what is said of one that cannot be used."""

from pathlib import Path

import pytest

from componentbase.sealing import key_lines, new_key
from metamanager.secretkeys import KeyFileError, Place, add_key, drop_former, keys_of, make_keys, place_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "edge").mkdir()
    return tmp_path / "edge"


def test_it_is_made_once_beside_the_data_directory_for_its_owner_alone(home: Path) -> None:
    place = place_of(home, None)
    assert place == Place(home.parent / "edge.secrets-key", True)
    sealed = keys_of(place).seal(b"value")
    assert place.path.stat().st_mode & 0o777 == 0o600
    assert keys_of(place_of(home, None)).open(sealed) == b"value"
    assert list(home.iterdir()) == []


def test_where_nothing_can_be_made_beside_it_is_in_the_directory_and_stays_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("os.access", lambda path, mode: False)
        make_keys(place_of(home, None).path)
    assert place_of(home, None) == Place(home / "secrets-key", True)


def test_an_operators_word_counts_before_systemds_credential_and_that_before_files(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(place_of(home, None).path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    assert place_of(home, None).is_ours, "a directory without this credential"
    (tmp_path / "credentials").mkdir()
    credential = tmp_path / "credentials" / "secrets-key"
    credential.write_text(new_key())
    assert place_of(home, None) == Place(credential, False)
    keys_of(place_of(home, None))
    assert place_of(home, tmp_path / "elsewhere") == Place(tmp_path / "elsewhere", True)


def test_a_new_key_goes_in_front_and_the_former_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "key"
    former = make_keys(path).seal(b"value")
    keys = add_key(path)
    assert keys.open(former) == b"value"
    assert not keys.is_current(former)
    drop_former(path)
    assert not make_keys(path).knows(former)
    for _ in range(12):
        add_key(path)
    assert len(key_lines(path.read_text())) == 8
    assert path.read_text().startswith("# What")


def test_a_file_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    for content, words in ((b"hunter2", "mend it, or move it away"), (b"", "0 keys"), (b"x" * 5000, "more than 4096")):
        path.write_bytes(content)
        with pytest.raises(KeyFileError, match=words) as caught:
            make_keys(path)
        assert "hunter2" not in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(KeyFileError, match="cannot be read"):
        make_keys(tmp_path)
    with pytest.raises(KeyFileError, match=r"name another place with secrets\.keyFile"):
        make_keys(tmp_path / "missing" / "key")
    path.write_text(new_key())
    path.chmod(0o644)
    make_keys(path)
    assert "chmod 600" in caplog.text
