"""Large bodies in files: whole before anybody names them, never written while somebody does, and few of them."""

from pathlib import Path

import pytest

from apiserver.largebodies import SPARE, LargeBodies, is_pointer
from componentbase.files import Unusable

PLACE = ("", "configmaps", "d", "a")


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    bodies = LargeBodies(tmp_path / "large")
    name = bodies.take()
    pointer = bodies.fill(name, b"x" * 300_000)
    assert is_pointer(pointer)
    assert LargeBodies(tmp_path / "large").read(pointer) == (b"x" * 300_000, name)
    assert (tmp_path / "large").stat().st_mode & 0o077 == 0
    assert (tmp_path / "large" / name).stat().st_mode & 0o077 == 0


def test_a_body_is_no_pointer() -> None:
    assert not is_pointer(b'{"kind":"ConfigMap"}')


def test_a_file_is_written_again_once_another_is_named_and_a_shorter_body_ends_where_it_ends(tmp_path: Path) -> None:
    bodies = LargeBodies(tmp_path)
    first, second = bodies.take(), bodies.take()
    assert first != second
    bodies.fill(first, b"long" * 1000)
    bodies.named(PLACE, first)
    pointer = bodies.fill(second, b"2")
    assert bodies.take() not in (first, second), "the first is the object's still"
    bodies.named(PLACE, second)
    assert bodies.take() == first
    block = (tmp_path / first).stat().st_ino
    assert bodies.read(bodies.fill(first, b"short"))[0] == b"short"
    assert (tmp_path / first).stat().st_ino == block
    assert bodies.read(pointer)[0] == b"2"


def test_of_files_that_nobody_names_few_are_kept(tmp_path: Path) -> None:
    bodies = LargeBodies(tmp_path)
    names = [bodies.take() for _ in range(SPARE + 3)]
    for name in names:
        bodies.fill(name, b"x")
    for name in names:
        bodies.give_back(name)
    assert len(files(tmp_path)) == SPARE


def test_an_object_that_goes_leaves_its_file_to_others(tmp_path: Path) -> None:
    bodies = LargeBodies(tmp_path)
    name = bodies.take()
    bodies.fill(name, b"x")
    bodies.named(PLACE, name)
    bodies.named(PLACE, None)
    assert bodies.take() == name


def test_what_no_row_names_is_removed_at_the_start(tmp_path: Path) -> None:
    before = LargeBodies(tmp_path)
    names = [before.take() for _ in range(3)]
    for name in names:
        before.fill(name, b"x")
    after = LargeBodies(tmp_path)
    after.named(PLACE, names[1])
    after.clear()
    assert files(tmp_path) == [names[1]]
    assert after.take() not in names, "a process that was superseded may still write its own"


def test_before_the_first_there_is_nothing_to_remove(tmp_path: Path) -> None:
    LargeBodies(tmp_path / "large").clear()
    assert not (tmp_path / "large").exists()


def test_a_file_that_is_cut_short_or_gone_is_an_error(tmp_path: Path) -> None:
    bodies = LargeBodies(tmp_path)
    name = bodies.take()
    pointer = bodies.fill(name, b"0123456789")
    (tmp_path / name).write_bytes(b"01234")
    with pytest.raises(ValueError, match="does not have what was written to it"):
        bodies.read(pointer)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError):
        bodies.read(pointer)


def test_where_no_directory_can_be_made_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("")
    bodies = LargeBodies(tmp_path / "large")
    with pytest.raises(Unusable, match="large: is not a directory"):
        bodies.fill(bodies.take(), b"x")
