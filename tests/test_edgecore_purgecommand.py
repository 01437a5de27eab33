"""`edgecore purge`: which files are edgecore's; the rest: test_secrets_end_to_end.py."""

from pathlib import Path

import pytest

from tests.harness.edgecommand import edgecore


def test_what_edgecore_made_goes_and_what_it_did_not_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, key = tmp_path / "home", tmp_path / "home.secrets-key"
    (home / "pki").mkdir(parents=True)
    (home / "edgecore.yaml").write_text("node: edge-1\ncloud: {link: 'hub:1'}\n")
    ours = [key, home / "edge.db", home / "edge.db-wal", home / "pki" / "edge.key"]
    other = home / "notes.txt"
    for path in (*ours, other):
        path.touch()
    purge = ("purge", "--data-dir", str(home), "--yes")
    assert edgecore(*purge, "--dry-run") == 0
    assert all(path.exists() for path in ours)
    assert edgecore(*purge) == 0
    assert "kubectl delete node edge-1" in capsys.readouterr().out
    assert list(tmp_path.rglob("*")) == [home, other]


def test_another_directory_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edge.key").touch()
    assert edgecore("purge", "--data-dir", str(tmp_path), "--yes") == 1
    assert "is not a node's directory" in capsys.readouterr().err
    assert (tmp_path / "edge.key").exists()
