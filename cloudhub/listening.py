"""
Where a hub process answers people and Prometheus: a socket file in its data directory, and a port where one is wanted.
"""

import contextlib
from pathlib import Path

from apiserver.http import Handler, ListenError, serve
from componentbase import cli
from componentbase.endpoints import Endpoint


async def serve_status(stack: contextlib.AsyncExitStack, path: Path, handler: Handler) -> None:
    """Until the stack is left. Raises CommandError."""
    try:
        await stack.enter_async_context(serve(handler, unix_path=path))
    except ListenError as exc:
        raise cli.CommandError(f"the status socket: {exc}") from exc


async def serve_metrics(stack: contextlib.AsyncExitStack, endpoint: Endpoint, handler: Handler) -> None:
    """Until the stack is left. Raises CommandError."""
    try:
        await stack.enter_async_context(serve(handler, host=endpoint.host or None, port=endpoint.port))
    except ListenError as exc:
        raise cli.CommandError(f"the metrics: {exc}; choose another under metrics in the configuration") from exc
