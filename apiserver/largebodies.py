"""
Large bodies beside the embedded apiserver's database: a file each, written ahead of the transaction that names it.

Everybody's next write waits for the transaction under way. 3 MB take SQLite 8 ms alone, of which 5 are its
processor's: pages, checksums, the log, and once more the file. On a busy machine that is 20 to 40. Written ahead,
only the row with the file's name is in anybody's way.

A file that no row names any more is written again, in place. A new one would take new blocks of the disk; then
every flush of whatever is on the same file system waits for these megabytes, too (ext4's data=ordered).

Invariants
    a file's content is on the disk before take()'s caller has anything to name
    what a row names is not written again, nor removed, until the row that names another is on the disk
    what no row names is removed at the next start, but for SPARE of them meanwhile

`fill` is for a thread; all else is the loop's.
"""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from componentbase.files import PRIVATE_FILE, fsync_dir, open_private_dir

LARGE_BYTES = 256 << 10  # of a body; below, another file and its flush cost more than they save
SPARE = 2  # of an object that changes, its next and one more; each is as large as the largest that it held
DIGEST_BYTES = 16
_POINTER = b"file:"
"""Of a row that has a file's digest, length and name instead of having a body: no JSON object begins like this."""

Place = tuple[str, str, str, str]
"""Of an object: API group, plural, namespace, name."""


def is_pointer(body: bytes) -> bool:
    """Whether a row has this instead of a body."""
    return body.startswith(_POINTER)


def _digest(body: bytes) -> bytes:
    """Files are used again, and a copy of the directory may be of another moment than the database's."""
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).hexdigest().encode()


class LargeBodies:
    """Those of one database."""

    def __init__(self, directory: Path) -> None:
        """directory: made with the first of them."""
        self._directory = directory
        self._prefix = secrets.token_hex(8)  # of another process's names none is ever written
        self._made = 0
        self._named: dict[Place, str] = {}
        self._spare: list[str] = []

    def take(self) -> str:
        """The name of a file to fill, which is nobody else's until it is named or given back."""
        if self._spare:
            return self._spare.pop()
        self._made += 1
        return f"{self._prefix}-{self._made}"

    def fill(self, name: str, body: bytes) -> bytes:
        """Write it; what a row has instead of the body. Raises OSError or componentbase.files.Unusable."""
        path = self._directory / name
        if not self._directory.is_dir():
            open_private_dir(self._directory)
            fsync_dir(self._directory.parent)
        is_new = not path.exists()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            rest = memoryview(body)
            while rest:
                rest = rest[os.pwrite(file, rest, len(body) - len(rest)) :]
            os.fdatasync(file)
            if is_new:
                fsync_dir(self._directory)
        except OSError:
            if is_new:  # the disk is full, say, and others have use for what there was left
                self._remove(name)
            raise
        finally:
            os.close(file)
        return b"%s%s:%d:%s" % (_POINTER, _digest(body), len(body), name.encode())

    def give_back(self, name: str) -> None:
        """No row names it, nor will."""
        self._spare.append(name)
        if len(self._spare) > SPARE:
            self._remove(self._spare.pop(0))

    def named(self, place: Place, name: str | None) -> None:
        """The object's row, on the disk, names this file now; None where it has its body, or is gone."""
        before = self._named.pop(place, None)
        if name is not None:
            self._named[place] = name
        if before is not None:
            self.give_back(before)

    def read(self, pointer: bytes) -> tuple[bytes, str]:
        """What a row with this points at, and the file's name. Raises OSError or ValueError."""
        digest, length, written = pointer.removeprefix(_POINTER).split(b":")
        name = written.decode()
        with (self._directory / name).open("rb") as file:
            found = file.read(int(length))
        if _digest(found) != digest:
            raise ValueError(f"{file.name} does not have what was written to it")
        return found, name

    def clear(self) -> None:
        """Remove all that no row names."""
        names = {*self._named.values()}
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                if path.name not in names:
                    self._remove(path.name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):  # it is removed at the next start
            (self._directory / name).unlink()
