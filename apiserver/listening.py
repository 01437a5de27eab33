"""
Opening the socket a server listens on: a TCP port or a socket file, refused in words where it cannot be.

Invariants
    a socket file that nobody answers on is replaced, one that is in use and a file of another kind never
"""

import asyncio
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

from componentbase.doorway import Doorway, Leave, Limits, open_doorway
from componentbase.endpoints import why_not_listening

HANDSHAKE_S = 10.0
UNIX_PATH_BYTES = 107  # sun_path has 108 with the zero at its end (unix(7)); the system's own text names no number


class ListenError(OSError):
    """The address cannot be listened on; the text says which and why."""

    def __str__(self) -> str:
        return str(self.strerror)  # without the number that OSError puts in front


class AddressInUse(ListenError):
    """Somebody else listens there."""


async def listen(
    protocol: Callable[[Leave], asyncio.BaseProtocol],
    *,
    host: str | None,
    port: int | None,
    unix_path: Path | None,
    unix_mode: int,
    ssl_context: ssl.SSLContext | None,
    limits: Limits,
    reuse_port: bool = False,
) -> Doorway | asyncio.Server:
    """
    A listening server, on `unix_path` where it is given, else on HOST:PORT. Raises AddressInUse or ListenError.

    limits: of connections to a port; a socket file's permissions say who may connect to it.
    reuse_port: other processes of this user may listen there too.
    """
    loop = asyncio.get_running_loop()
    handshake = HANDSHAKE_S if ssl_context else None
    try:
        if unix_path is not None:
            _clear_socket(unix_path)
            listener = await loop.create_unix_server(
                lambda: protocol(lambda: None), str(unix_path), ssl=ssl_context, ssl_handshake_timeout=handshake
            )
            unix_path.chmod(unix_mode)  # noqa: ASYNC240  # one system call
            return listener
        return await open_doorway(
            protocol,
            host or "",
            port or 0,
            limits,
            context=ssl_context,
            handshake_s=HANDSHAKE_S,
            reuse_port=reuse_port,
        )
    except ListenError:
        raise
    except OSError as exc:
        if unix_path is not None:
            raise ListenError(exc.errno, f"cannot listen on {unix_path}: {exc.strerror or exc}") from exc
        kind = AddressInUse if exc.errno == errno.EADDRINUSE else ListenError
        raise kind(exc.errno, why_not_listening(host or "", port or 0, exc)) from exc


def _clear_socket(path: Path) -> None:
    """Remove a socket file that a killed process left; one that still answers is in use."""
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        raise ListenError(
            errno.ENAMETOOLONG,
            f"the path of the socket file {path} is longer than {UNIX_PATH_BYTES} bytes: choose a shorter directory",
        )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(errno.EEXIST, f"cannot listen on {path}: a file that is no socket is in the way")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise AddressInUse(errno.EADDRINUSE, f"{path} is in use by a process that is running")
