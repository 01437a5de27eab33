"""
A watch as a client reads it, line by line, with the time of each: http.client on a connection of its own.

Plain, so that what is measured is the line before it, and the same for an apiserver and for a node's local API.
"""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

Line = tuple[float, bytes]
"""When it came, on the perf_counter clock, and an event as JSON."""


def watched(connection: http.client.HTTPConnection, path: str, headers: Mapping[str, str] = {}) -> Iterator[Line]:
    """Ask for a watch, and wait for the answer's head; the lines are read as they are asked for, until it ends."""
    connection.request("GET", path, headers=dict(headers))
    return _lines(connection.getresponse())


def _lines(answer: http.client.HTTPResponse) -> Iterator[Line]:
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
        while (line := answer.readline()).endswith(b"\n"):  # what was cut off at the end is no event
            yield time.perf_counter(), line


def wake_reader(connection: http.client.HTTPConnection) -> None:
    """End a watch that another thread reads: it would wait for the next line for ever."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def following(
    connection: http.client.HTTPConnection,
    path: str,
    told: Callable[[float, bytes], None],
    headers: Mapping[str, str] = {},
) -> Iterator[None]:
    """Tell of every line of a watch, in a thread of its own; the connection is closed at the end."""
    lines = watched(connection, path, headers)

    def read() -> None:
        for at, line in lines:
            told(at, line)

    thread = threading.Thread(target=read, name=f"watch[{path}]", daemon=True)
    thread.start()
    try:
        yield
    finally:
        wake_reader(connection)
        thread.join(5)
        connection.close()
