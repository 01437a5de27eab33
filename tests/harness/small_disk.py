"""
A directory on a disk that is full, read-only or becomes so, for processes under test.

    with SmallDisk() as disk:
        disk.fill(); disk.free()
        disk.make_read_only()

For root it is a file system of its own (tmpfs). Whoever may not mount gets the nearest thing there is: permission bits,
which root would not obey, and a limit on the size of files, which `limits` puts on one process.
"""

import os
import resource
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

SIZE_MB = 4


class SmallDisk:
    """One directory, `path`; leaving the block removes it."""

    def __init__(self, size_mb: int = SIZE_MB) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="small-disk-")
        self.path = Path(self._directory.name)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0700", "tmpfs", str(self.path)]
        self.is_mounted = (
            os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)
        else:
            for directory in (self.path, *(each for each in self.path.rglob("*") if each.is_dir())):
                directory.chmod(0o700)
        self._directory.cleanup()

    def fill(self, pid: int | None = None) -> None:
        """Leave no room; pid: the process that is to notice where there is no file system of our own."""
        if not self.is_mounted:
            self._limit(pid, 0)
            return
        with (self.path / "filler").open("wb", buffering=0) as filler:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        filler.write(bytes(size))
                except OSError:
                    continue

    def free(self, pid: int | None = None) -> None:
        """Make room again."""
        if self.is_mounted:
            (self.path / "filler").unlink()
        else:
            self._limit(pid, resource.RLIM_INFINITY)

    def make_read_only(self) -> None:
        """Nothing can be written from now on; what is open stays open."""
        if self.is_mounted:
            subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True)
        else:
            for directory in (self.path, *(each for each in self.path.rglob("*") if each.is_dir())):
                directory.chmod(0o500)

    @staticmethod
    def _limit(pid: int | None, size: int) -> None:
        # The soft limit only, so that it can be lifted again. Without a pid it is our own, which children inherit.
        _, most = resource.prlimit(pid or 0, resource.RLIMIT_FSIZE)
        resource.prlimit(pid or 0, resource.RLIMIT_FSIZE, (size, most))
