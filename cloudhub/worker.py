"""
The worker's end of its two pipes to the supervisor: "I serve" on its standard output, and nothing without it.

Whatever ends the supervisor, SIGKILL included, closes the other end of the standard input: so no worker is left
behind that serves on a port which somebody takes for free.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from componentbase import cli


def data_dir(parent: Path, number: int) -> Path:
    """The worker's own, for its lock and its status socket, in that of all."""
    return parent / f"worker-{number}"


def say_serving(where: Mapping[str, str]) -> None:
    """Tell the supervisor, once."""
    print(json.dumps(where), flush=True)


def has_terminal() -> bool:
    """Whether somebody sits there, whose leaving is a SIGHUP; else it is a service manager's "look again"."""
    return sys.stdin is not None and sys.stdin.isatty()


async def end_with_supervisor() -> None:
    """Returns never: raises CommandError when the supervisor is gone."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while await reader.read(1024):
            pass
    finally:
        transport.close()
    raise cli.CommandError("the supervisor is gone")
