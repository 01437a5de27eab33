"""Purging takes what is named and nothing else, after somebody agreed, and never beside a running process."""

import os
from pathlib import Path

import pytest

from componentbase.files import lock_dir
from componentbase.purging import Purge, PurgeError, purge


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "edge"
    (home / "pki" / "old").mkdir(parents=True)
    (home / ".renewing").mkdir()
    for name in (
        ".renewing/edge.key",
        "edge.db",
        "edge.db-wal",
        "edge.db.corrupt-1",
        "pki/edge.key",
        "pki/old/ca.crt",
        ".edge.db.x.part",
    ):
        (home / name).write_text("x")
    (tmp_path / "edge.secrets-key").write_text("x")
    return home


def plan(home: Path) -> Purge:
    inside = (".renewing/edge.key", ".renewing", "pki/edge.key", "pki/old/ca.crt", "pki/old", "pki", "edge.db*")
    return Purge(home, [(home.parent, "edge.secrets-key"), *((home, pattern) for pattern in inside)])


def test_everything_goes_with_the_directory_the_keys_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [path.relative_to(home.parent).as_posix() for path in plan(home).found()]
    assert found[0] == "edge.secrets-key"
    assert found.index("edge/pki/old/ca.crt") < found.index("edge/pki/old") < found.index("edge/pki")
    assert purge(plan(home), dry_run=False, yes=True, ask=None)
    assert list(home.parent.iterdir()) == []
    assert "edge.db-wal" in capsys.readouterr().out


def test_what_is_not_ours_stays_and_is_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "notes").write_text("x")
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("x")
    os.symlink(elsewhere, home / "pki" / "link")
    (home / "pki" / "old" / "theirs.crt").write_text("x")
    (home / "empty").mkdir()
    assert purge(plan(home), dry_run=False, yes=False, ask=lambda question: " Yes")
    kept = ["empty", "notes", "pki", "pki/link", "pki/old", "pki/old/theirs.crt"]
    assert sorted(path.relative_to(home).as_posix() for path in home.rglob("*")) == kept
    assert (elsewhere / "kept").exists()
    told = capsys.readouterr().out.partition("left")[2].split()
    for name in ("empty", "notes", "pki/link", "pki/old/theirs.crt"):
        assert str(home / name) in told


def test_a_link_of_our_name_goes_and_not_what_it_leads_to(home: Path) -> None:
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("x")
    (home / "pki" / "edge.key").unlink()
    os.symlink(elsewhere / "kept", home / "pki" / "edge.key")
    assert purge(plan(home), dry_run=False, yes=True, ask=None)
    assert not home.exists()
    assert (elsewhere / "kept").exists()


def test_nothing_goes_in_a_dry_run_or_before_somebody_agreed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(home.parent.rglob("*"))
    assert not purge(plan(home), dry_run=True, yes=True, ask=None)
    for answer in ("", "n", "nay"):
        with pytest.raises(PurgeError, match="nothing was removed"):
            purge(plan(home), dry_run=False, yes=False, ask={"remove it all? [y/N] ": answer}.__getitem__)
    with pytest.raises(PurgeError, match="say --yes"):
        purge(plan(home), dry_run=False, yes=False, ask=None)
    with lock_dir(home):
        with pytest.raises(
            PurgeError, match=rf"nothing was removed: .* in use by process {os.getpid()}.*stop that one"
        ):
            purge(plan(home), dry_run=False, yes=True, ask=None)
        capsys.readouterr()
        assert not purge(plan(home), dry_run=True, yes=False, ask=None)
        told = capsys.readouterr().out.splitlines()
        assert f"  {home / 'edge.db'}" in told
        assert told[-1].endswith("stop that one first")
    assert [path for path in sorted(home.parent.rglob("*")) if path.name != "lock"] == before


def test_keys_behind_a_directory_that_is_a_link_stay_and_are_told(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = home.parent / "private"
    elsewhere.mkdir()
    (elsewhere / "host.key").write_text("x")
    linked = home / "keys"
    os.symlink(elsewhere, linked)
    assert purge(Purge(home, [(home, "keys/*.key"), (home, "keys")]), dry_run=False, yes=True, ask=None)
    assert (elsewhere / "host.key").exists()
    assert not linked.is_symlink()
    told = capsys.readouterr().out
    assert f"left, for a link leads there; remove it by hand:\n  {elsewhere / 'host.key'}\n" in told
    assert told.endswith(f"removed, but not where links lead to: {elsewhere / 'host.key'}\n")
