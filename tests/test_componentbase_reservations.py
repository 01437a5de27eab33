"""Ports kept for processes that share them: those may listen, nobody else may, and no connection gets lost."""

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from componentbase.endpoints import Endpoint
from componentbase.reservations import reserved

HERE = Endpoint("127.0.0.1", 0)


@contextmanager
def listener(port: int, *, shared: bool) -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("127.0.0.1", port))
        made.listen()
        yield made


def test_those_that_share_it_may_listen_and_get_every_connection() -> None:
    with reserved(HERE) as endpoint, listener(endpoint.port, shared=True) as one:
        assert endpoint.port
        with listener(endpoint.port, shared=True) as two:
            clients = [socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) for _ in range(20)]
            accepted: list[socket.socket] = []
            while len(accepted) < len(clients):
                # A client is connected a moment before there is somebody to accept, where the kernel is busy.
                found, _, _ = select.select([one, two], [], [], 5)
                assert found, "the socket that keeps the port takes none"
                accepted.append(found[0].accept()[0])
            for each in [*clients, *accepted]:
                each.close()


def test_whoever_wants_it_for_himself_is_refused_while_it_is_kept() -> None:
    with reserved(HERE) as endpoint:
        with pytest.raises(OSError, match="in use"), listener(endpoint.port, shared=False):
            pass
        with pytest.raises(OSError, match="in use"), reserved(endpoint):
            pass
    with listener(endpoint.port, shared=False):
        pass


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_that_somebody_listens_on_is_taken(shared: bool) -> None:
    with (
        listener(0, shared=shared) as other,
        pytest.raises(OSError, match="in use"),
        reserved(Endpoint("127.0.0.1", other.getsockname()[1])),
    ):
        pass


def test_connections_that_were_just_closed_are_not_in_the_way() -> None:
    with listener(0, shared=False) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # this side first: it is the one that waits
        client.close()
    with reserved(Endpoint("127.0.0.1", port)) as endpoint:
        assert endpoint.port == port


def test_without_a_host_it_is_kept_on_every_address() -> None:
    with (
        reserved(Endpoint("", 0)) as endpoint,
        pytest.raises(OSError, match="in use"),
        listener(endpoint.port, shared=False),
    ):
        pass
