"""Listening: taken ports, foreign addresses, socket files that were left, in use or in the way."""

import socket
from pathlib import Path

import pytest

from apiserver.http import Request, Response, serve
from apiserver.listening import AddressInUse, ListenError


async def echo(_: Request) -> Response:
    return Response(200)


async def test_a_taken_port_is_said_in_words() -> None:
    async with serve(echo, host="127.0.0.1", port=0) as server:
        with pytest.raises(AddressInUse, match=f"port {server.port} is taken"):
            async with serve(echo, host="127.0.0.1", port=server.port):
                pass


async def test_an_address_of_another_machine_is_refused_in_words() -> None:
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.1:"):
        async with serve(echo, host="192.0.2.1", port=0):
            pass


async def test_a_socket_file_that_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    async with serve(echo, unix_path=path):
        pass


async def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        async with serve(echo, unix_path=path):
            pass
    assert path.read_text() == "precious"
