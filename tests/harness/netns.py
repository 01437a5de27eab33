"""
Two networks of the kernel's with a cable between them, in one process: sockets stay in the network they were made in.

Needs root and iproute2; `why_not()` says what is missing.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CLONE_NEWNET = 0x40000000
HUB, EDGE = "hub", "edge"
_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str:
    """ "" where networks can be made."""
    if shutil.which("ip") is None:
        return "there is no ip command"
    name = f"fl-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"networks cannot be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return ""


class Networks:
    """`hub` and `edge`."""

    def __init__(self) -> None:
        self._prefix = f"fl{os.getpid()}"

    def _name(self, which: str) -> str:
        return f"{self._prefix}-{which}"

    def ip(self, which: str, command: str) -> None:
        """As the command ip, there."""
        subprocess.run(["ip", "-n", self._name(which), *command.split()], check=True, capture_output=True)

    @contextmanager
    def inside(self, which: str) -> Iterator[None]:
        """What is made meanwhile by this thread is made there."""
        with (
            Path("/proc/thread-self/ns/net").open() as before,
            Path(f"/run/netns/{self._name(which)}").open() as there,
        ):
            _set(there.fileno())
            try:
                yield
            finally:
                _set(before.fileno())


def _set(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def networks(hub: str, edge: str) -> Iterator[Networks]:
    """hub, edge: their addresses, with the network's length."""
    made = Networks()
    try:
        for which in (HUB, EDGE):
            subprocess.run(["ip", "netns", "add", made._name(which)], check=True, capture_output=True)
        made.ip(HUB, f"link add wire type veth peer name wire netns {made._name(EDGE)}")
        for which, address in ((HUB, hub), (EDGE, edge)):
            made.ip(which, f"addr add {address} dev wire")
            made.ip(which, "link set wire up")
        yield made
    finally:
        for which in (HUB, EDGE):
            with suppress(OSError):
                subprocess.run(["ip", "netns", "del", made._name(which)], check=False, capture_output=True)
