"""
Taking away all that a process made on a machine, and nothing else.

Invariants
    only files that match a given name go; what else lies there stays, and is told
    a directory goes only where all that is in it goes
    links are taken away and not followed
    nothing goes while the process runs, or before somebody agreed
"""

import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from componentbase.errors import CommandError
from componentbase.files import LOCK_NAME, Locked, check_unlocked, lock_dir

UNFINISHED = (".*.part", ".probe.*")
"""What write_atomic and open_private_dir leave where they are killed."""


class PurgeError(CommandError):
    """Something could not be removed, or nobody agreed; the text says what to do."""


class Purge(NamedTuple):
    """What is to go."""

    directory: Path
    """The process' own: it goes as well, where nothing else is in it."""
    files: Sequence[tuple[Path, str]]
    """
    Directories, and patterns of names in them, in the order in which they go.

    A directory that matches goes where all that is in it matched before.
    """

    def found(self) -> list[Path]:
        """What is there of them, each once."""
        patterns = [*self.files, *((self.directory, name) for name in (*UNFINISHED, LOCK_NAME))]
        found: dict[Path, None] = {}
        for directory, pattern in patterns:
            for path in sorted(directory.glob(pattern)):
                between = path.relative_to(directory).parents
                if any((directory / each).is_symlink() for each in list(between)[:-1]):
                    continue  # no link is followed
                if not _is_folder(path) or found.keys() >= set(path.iterdir()):
                    found[path] = None
        return list(found)


def purge(plan: Purge, *, dry_run: bool, yes: bool, ask: Callable[[str], str] | None) -> bool:
    """
    Tell what there is, ask, and remove it; whether it was removed.

    ask: reads an answer from a person; None where there is none. A dry run may be had while the process runs.
    Raises PurgeError and componentbase.files.FilesError.
    """
    if dry_run:
        _tell(plan, "would be removed:")
        try:
            check_unlocked(plan.directory)
        except Locked as exc:
            print(f"not now, for {_stop_first(exc)}")
        return False
    try:
        with lock_dir(plan.directory):
            led = _led_to(plan, plan.found())
            _remove_all(plan, yes=yes, ask=ask)
    except Locked as exc:
        raise PurgeError(f"nothing was removed: {_stop_first(exc)}") from exc
    print(f"removed, but not where links lead to: {', '.join(map(str, led))}" if led else "removed")
    return True


def _remove_all(plan: Purge, *, yes: bool, ask: Callable[[str], str] | None) -> None:
    found, left = _tell(plan, "to be removed:")
    if not yes:
        if ask is None:
            raise PurgeError("nobody is here to be asked: nothing was removed; say --yes")
        if ask("remove it all? [y/N] ").strip().lower() not in ("y", "yes"):
            raise PurgeError("nothing was removed")
    for path in found:
        _remove(path)
    if not left:
        _remove(plan.directory)


def _tell(plan: Purge, headline: str) -> tuple[list[Path], list[Path]]:
    """What goes, and what is left."""
    found = plan.found()
    print(headline)
    print("\n".join(f"  {path}" for path in found))
    left = sorted(
        path
        for path in set(_within(plan.directory)) - {*found, plan.directory}
        if not _is_folder(path) or not any(path.iterdir())
    )
    if left:
        print("left, for it is not ours:\n" + "\n".join(f"  {path}" for path in left))
    if led := _led_to(plan, found):
        print("left, for a link leads there; remove it by hand:\n" + "\n".join(f"  {path}" for path in led))
    return found, left


def _led_to(plan: Purge, found: Sequence[Path]) -> list[Path]:
    """What is ours by its name, and where a link among what goes leads to."""
    links, led = [path for path in found if path.is_symlink() and path.exists()], set[Path]()
    for link in links:
        if not link.is_dir():
            led.add(link.resolve())
        for directory, pattern in plan.files:
            led |= {path.resolve() for path in directory.glob(pattern) if link in path.parents}
    return sorted(led)


def _stop_first(locked: Locked) -> str:
    who = "a process that runs" if locked.pid is None else f"process {locked.pid}, which runs"
    return f"{locked.path} is in use by {who}: stop that one first"


def _within(path: Path) -> Iterator[Path]:
    """What is in a directory, before the directory itself; a file alone."""
    if _is_folder(path):
        for each in sorted(path.iterdir()):
            yield from _within(each)
    yield path


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            path.rmdir()
        else:
            path.unlink()
    except FileNotFoundError:
        pass
    except OSError as exc:
        raise PurgeError(f"{path} cannot be removed: {exc.strerror}; what follows it is still there") from exc
