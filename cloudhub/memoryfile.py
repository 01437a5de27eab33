"""A secret as a file, for the time that the TLS library takes to read it: it takes keys from files only."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_file(secret: bytes) -> Iterator[str]:
    """A path to read the secret from while the block lasts; it is in memory, or where only this user can enter."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("fairlead", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, secret)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="fairlead-") as folder:  # of mode 0700
        path = Path(folder, "key")
        path.write_bytes(secret)
        yield str(path)
