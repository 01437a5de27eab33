"""Files that are whole after a crash, directories of one's own, and locks that tell who holds them."""

import errno
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from componentbase.files import (
    LOCK_NAME,
    FilesError,
    Locked,
    Unusable,
    check_private_dir,
    lock_dir,
    open_private_dir,
    write_atomic,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- write_atomic


def test_file_is_written_for_its_owner_only(tmp_path: Path) -> None:
    write_atomic(tmp_path / "key.pem", b"secret")
    assert (tmp_path / "key.pem").read_bytes() == b"secret"
    assert mode_of(tmp_path / "key.pem") == 0o600


def test_mode_is_as_asked_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        write_atomic(tmp_path / "ca.pem", b"public", mode=0o644)
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "ca.pem") == 0o644


def test_content_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"old")
    write_atomic(str(tmp_path / "a"), b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_old_content_stands_where_a_step_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_atomic(tmp_path / "a", b"old")

    def fail(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(Unusable, match="cannot be written: the file system is full") as caught:
        write_atomic(tmp_path / "a", b"new")
    assert caught.value.path == tmp_path / "a"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_write_that_the_system_cuts_short_leaves_the_old_content(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write really fails, after a part of it."""
    write_atomic(tmp_path / "a", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(Unusable, match="cannot be written: file too large"):
            write_atomic(tmp_path / "a", bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="none/a: cannot be written: no such file or directory"):
        write_atomic(tmp_path / "none" / "a", b"x")


# ---- open_private_dir


def test_directory_is_made_with_its_parents_and_closed_to_others(tmp_path: Path) -> None:
    path = open_private_dir(tmp_path / "a" / "b")
    assert path == tmp_path / "a" / "b"
    assert mode_of(path) == 0o700
    assert list(path.iterdir()) == []


def test_relative_directory_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_private_dir("data") == tmp_path / "data"


def test_open_directory_of_ours_is_closed_and_its_content_kept(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.mkdir(mode=0o755)
    (path / "x").touch()
    open_private_dir(path)
    assert mode_of(path) == 0o700
    assert [child.name for child in path.iterdir()] == ["x"]


def test_directory_shared_by_everybody_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    with pytest.raises(Unusable, match="is shared by all users; choose a directory of its own"):
        open_private_dir(path)
    assert mode_of(path) == 0o1777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_taken_only_if_others_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.mkdir()
    os.chown(path, 12345, 12345)
    path.chmod(0o775)
    with pytest.raises(Unusable, match="belongs to another user and others can write to it"):
        open_private_dir(path)
    path.chmod(0o755)
    open_private_dir(path)
    assert mode_of(path) == 0o755


def test_file_in_the_place_of_the_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unusable, match="file: is not a directory"):
        open_private_dir(tmp_path / "file")
    with pytest.raises(Unusable, match="a part of the path is not a directory"):
        open_private_dir(tmp_path / "file" / "data")


def test_read_only_place_is_told() -> None:
    with pytest.raises(Unusable, match="cannot be used as a data directory"):
        open_private_dir("/proc/fairlead")


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "the file system is full"), (errno.EROFS, "the file system is read-only"), (errno.EIO, "boom")],
)
def test_directory_that_cannot_be_written_is_noticed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def fail(_fd: int) -> None:
        raise OSError(number, "Boom")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(Unusable) as caught:
        open_private_dir(tmp_path)
    assert str(caught.value) == f"{tmp_path}: cannot be used as a data directory: {says}"
    assert list(tmp_path.iterdir()) == []


# ---- lock_dir


def test_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with lock_dir(tmp_path):
        with pytest.raises(Locked) as caught, lock_dir(tmp_path):
            pass
        assert caught.value.pid == os.getpid()
        assert str(caught.value) == f"{tmp_path}: in use by process {os.getpid()}; stop it or choose another directory"
    with lock_dir(tmp_path):
        pass


def test_lock_is_free_after_kill_9(tmp_path: Path) -> None:
    code = """if True:
        import sys, time
        from componentbase.files import lock_dir
        with lock_dir(sys.argv[1]):
            print(1, flush=True)
            time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        try:
            with pytest.raises(Locked, match=f"in use by process {holder.pid}"), lock_dir(tmp_path):
                pass
        finally:
            holder.kill()
    with lock_dir(tmp_path):
        pass


def test_lock_is_not_handed_to_a_child(tmp_path: Path) -> None:
    with lock_dir(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with lock_dir(tmp_path):
            pass
    finally:
        child.communicate(b"\n")


def test_holder_that_has_not_written_its_number_is_another_process(tmp_path: Path) -> None:
    with lock_dir(tmp_path):
        (tmp_path / LOCK_NAME).write_bytes(b"")
        with pytest.raises(Locked, match="in use by another process") as caught, lock_dir(tmp_path):
            pass
        assert caught.value.pid is None


def test_directory_that_cannot_be_locked_is_told(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match="lock: cannot be opened: no such file or directory"), lock_dir(tmp_path / "x"):
        pass


# ---- looking without touching


def test_a_directory_that_would_do_is_left_as_it_is(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir(mode=0o755)
    before = there.stat()
    check_private_dir(there)
    check_private_dir(tmp_path / "not" / "yet")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert not list(there.iterdir())
    assert there.stat() == before


def test_a_directory_that_would_not_do_is_told_as_it_would_be(tmp_path: Path) -> None:
    file, shared = tmp_path / "file", tmp_path / "shared"
    file.write_text("x")
    shared.mkdir()
    shared.chmod(0o1777)
    for path in (file, file / "inside", shared, Path("/proc/fairlead")):  # where root may write, and cannot
        with pytest.raises(Unusable) as opened:
            open_private_dir(path)
        with pytest.raises(Unusable) as checked:
            check_private_dir(path)
        assert opened.value.path == checked.value.path
    with pytest.raises(Unusable, match="is not a directory"):
        check_private_dir(file / "inside")


def test_a_directory_in_use_is_told_of(tmp_path: Path) -> None:
    with lock_dir(tmp_path):
        with pytest.raises(Locked) as caught:
            check_private_dir(tmp_path)
        assert caught.value.pid == os.getpid()
    check_private_dir(tmp_path)
    with lock_dir(tmp_path):  # the look has not kept it
        pass
