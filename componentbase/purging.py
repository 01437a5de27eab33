"""
Taking away all that a process made on a machine, and nothing else.

Invariants
    only files that match a given name go; what else lies in the directory stays, and is told
    links are taken away and not followed
    nothing goes while the process runs, or before somebody agreed
"""

import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from componentbase.errors import CommandError
from componentbase.files import LOCK_NAME, lock_dir

UNFINISHED = (".*.part", ".probe.*", ".joining*", ".renewing*")
"""What write_atomic, open_private_dir, joining and renewing leave where they are killed."""


class PurgeError(CommandError):
    """Something could not be removed, or nobody agreed; the text says what to do."""


class Purge(NamedTuple):
    """What is to go."""

    directory: Path
    """The process' own: it goes as well, where nothing else is in it."""
    files: Sequence[tuple[Path, str]]
    """Directories, and patterns of names in them, in the order in which they go; a directory with all that is in it."""

    def found(self) -> list[Path]:
        """What is there of them, each once."""
        patterns = [*self.files, *((self.directory, name) for name in (*UNFINISHED, LOCK_NAME))]
        found = (
            path
            for directory, pattern in patterns
            for path in sorted(directory.glob(pattern))
            if path.parent == directory or not path.parent.is_symlink()  # no link is followed
        )
        return list(dict.fromkeys(path for each in found for path in _within(each)))


def purge(plan: Purge, *, dry_run: bool, yes: bool, ask: Callable[[str], str] | None) -> bool:
    """
    Tell what there is, ask, and remove it; whether it was removed.

    ask: reads an answer from a person; None where there is none. Raises PurgeError and componentbase.files.FilesError,
    Locked among them where the process runs.
    """
    with lock_dir(plan.directory):
        found = plan.found()
        print("would be removed:" if dry_run else "to be removed:")
        print("\n".join(f"  {path}" for path in found))
        left = sorted(set(_within(plan.directory)) - {*found, plan.directory})
        if left:
            print("left, for it is not ours:\n" + "\n".join(f"  {path}" for path in left))
        if dry_run:
            return False
        if not yes:
            if ask is None:
                raise PurgeError("nobody is here to be asked: nothing was removed; say --yes")
            if ask("remove it all? [y/N] ").strip().lower() not in ("y", "yes"):
                raise PurgeError("nothing was removed")
        for path in found:
            _remove(path)
        if not left:
            _remove(plan.directory)
    print("removed")
    return True


def _within(path: Path) -> Iterator[Path]:
    """What is in a directory, before the directory itself; a file alone."""
    if path.is_dir() and not path.is_symlink():
        for each in sorted(path.iterdir()):
            yield from _within(each)
    yield path


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
