"""
Files that are whole after a crash, and directories that belong to one process of one user.

Invariants
    after write_atomic returns, the new content survives a power cut; before, the old content is untouched
    nothing is ever readable by others for a moment only to be restricted afterwards
    a directory is locked by at most one process, and the kernel frees the lock whichever way that process ends
"""

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from componentbase.errors import CommandError

LOCK_NAME = "lock"
PRIVATE_DIR = 0o700
PRIVATE_FILE = 0o600

_PROBE_BYTES = 4096  # one block: enough to notice that the file system is full
_REASONS = {
    errno.EACCES: "permission denied",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOSPC: "the file system is full",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
}


class FilesError(CommandError):
    """A file or directory cannot be used; the text names it and says why."""


class Unusable(FilesError):
    """Choose another path, or mend this one: it cannot be written, or is not what it should be."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Locked(FilesError):
    """Another process uses the directory: stop that one, or choose another directory."""

    def __init__(self, path: Path, pid: int | None) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid
        """The other process; None where it has not yet written its number."""

    def __str__(self) -> str:
        who = "another process" if self.pid is None else f"process {self.pid}"
        return f"{self.path}: in use by {who}; stop it or choose another directory"


def write_atomic(path: str | Path, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """
    Replace the file's content at once and durably. Raises Unusable; the old content then stands.

    The data is written beside the file, flushed to the disk and renamed over it, and the rename is flushed too.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)  # mode 0600
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        temporary = None
        fsync_dir(path.parent)
    except OSError as exc:
        raise Unusable(path, f"cannot be written: {_reason(exc)}") from exc
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def fsync_dir(path: Path) -> None:
    """Have what was made, renamed or removed in a directory survive a power cut. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_private_dir(path: str | Path) -> Path:
    """
    The directory, made if it is missing, closed to other users and found to be writable. Raises Unusable.

    A directory of this user that others can enter is closed; one shared by everybody, such as /tmp, is refused.
    """
    path = Path(path).absolute()
    try:
        path.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
        _close_to_others(path)
        _probe(path)
    except FileExistsError as exc:
        raise Unusable(path, "is not a directory") from exc
    except OSError as exc:
        raise Unusable(path, f"cannot be used as a data directory: {_reason(exc)}") from exc
    return path


def check_private_dir(path: str | Path) -> None:
    """
    What open_private_dir and lock_dir would raise, as far as that can be told without changing anything.

    A directory that is missing is not made: then its parents are looked at.
    """
    path = Path(path).absolute()
    try:
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir():
            raise Unusable(path, "is not a directory" if there == path else f"{there} is not a directory")
        if there == path:
            _is_open_to_others(path)
            check_unlocked(path)
        if not os.access(there, os.W_OK | os.X_OK):
            reason = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(reason, os.strerror(reason))
        _try_to_make(there)
        room = os.statvfs(there)
        if room.f_blocks and not room.f_bavail:  # a tmpfs without a limit has no blocks at all
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as exc:
        raise Unusable(path, f"cannot be used as a data directory: {_reason(exc)}") from exc


def _try_to_make(directory: Path) -> None:
    """
    Raises OSError where nothing can be made in a directory: to root os.access says yes of every one, be it in /proc.

    A file without a name is nothing that anybody sees; on file systems without such (NFS), a directory for a moment.
    """
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, PRIVATE_FILE))
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            raise
        os.rmdir(tempfile.mkdtemp(prefix=".probe.", dir=directory))


@contextlib.contextmanager
def lock_dir(path: str | Path) -> Iterator[None]:
    """Hold the directory for this process as long as the context lasts. Raises Locked, at once, or Unusable."""
    path = Path(path)
    lock = path / LOCK_NAME
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as exc:
        raise Unusable(lock, f"cannot be opened: {_reason(exc)}") from exc
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Locked(path, _pid_in(fd)) from exc
        except OSError as exc:
            raise Unusable(lock, f"cannot be locked: {_reason(exc)}") from exc
        _write_pid(fd, lock)
        yield
    finally:
        os.close(fd)  # frees the lock; the file stays, for unlinking it would let two processes lock two files


def check_unlocked(path: Path) -> None:
    """Raises Locked, or OSError. Takes the lock for a moment, shared: it makes no file and writes no number."""
    try:
        fd = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise Locked(path, _pid_in(fd)) from exc
    finally:
        os.close(fd)


def _close_to_others(path: Path) -> None:
    if _is_open_to_others(path):
        path.chmod(PRIVATE_DIR)


def _is_open_to_others(path: Path) -> bool:
    """Whether it is to be closed first. Raises Unusable where it is not ours to close."""
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_ISVTX:
        raise Unusable(path, "is shared by all users; choose a directory of its own, such as one inside it")
    if status.st_uid == os.geteuid():
        return bool(mode & 0o077)
    if mode & 0o022:
        raise Unusable(path, "belongs to another user and others can write to it")
    return False


def _probe(path: Path) -> None:
    """Fail now, with a name, and not at the first write an hour later."""
    with tempfile.NamedTemporaryFile(dir=path, prefix=".probe.", buffering=0) as file:
        file.write(bytes(_PROBE_BYTES))
        os.fsync(file.fileno())


def _write_pid(fd: int, lock: Path) -> None:
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    except OSError as exc:
        raise Unusable(lock, f"cannot be written: {_reason(exc)}") from exc


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _reason(exc: OSError) -> str:
    if exc.errno in _REASONS:
        return _REASONS[exc.errno]
    return (exc.strerror or str(exc)).lower()
