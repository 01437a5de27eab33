"""Where a hub answers people and Prometheus, refused in words that say what to change."""

import contextlib
import socket
from pathlib import Path

import pytest

from apiserver.http import Request, Response
from cloudhub.listening import serve_metrics, serve_status
from componentbase.endpoints import Endpoint
from componentbase.errors import CommandError


async def answer(_: Request) -> Response:
    return Response(200)


async def test_a_port_that_is_taken_is_told_with_what_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        async with contextlib.AsyncExitStack() as stack:
            with pytest.raises(CommandError, match=r"the metrics: port \d+ is taken.*under metrics in the config"):
                await serve_metrics(stack, Endpoint("127.0.0.1", taken.getsockname()[1]), answer)


async def test_a_file_in_the_way_of_the_socket_is_told(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("mine")
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(CommandError, match=r"the status socket: cannot listen on .* in the way"):
            await serve_status(stack, tmp_path / "s", answer)
    assert (tmp_path / "s").read_text() == "mine"
