"""Packets wait by connection, and connections take turns."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from link import quicsocket
from link.pathmtu import BASE_BYTES, LARGEST_BYTES
from link.quicsocket import OWN_BYTES, STRANGE_BYTES, Address, Socket, Waiting

WHENCE = ("10.0.0.1", 1)


class Node:
    """Notes in what order packets are looked at."""

    def __init__(self, name: bytes, order: list[bytes]) -> None:
        self.remote = name.decode()
        self._order = order

    def datagram_received(self, data: bytes, address: Address) -> None:
        self._order.append(data)

    def transmit(self) -> None:
        pass


@contextmanager
def sockets(order: list[bytes], nodes: dict[bytes, Node]) -> Iterator[tuple[socket.socket, Socket]]:
    """Somebody who writes, and a hub's socket; the first byte says which node a packet is of."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s,
    ):
        ours.bind(("127.0.0.1", 0))
        s.connect(ours.getsockname())
        made = Socket(ours, lambda data: nodes.get(data[:1]), lambda _, data, __: order.append(data))
        try:
            yield s, made
        finally:
            made.close()


async def test_a_node_that_is_quiet_does_not_wait_for_one_that_is_not() -> None:
    order: list[bytes] = []
    nodes = {name: Node(name, order) for name in (b"n", b"q")}
    with sockets(order, nodes) as (writer, hub):
        for at in range(300):
            writer.send(b"n%d" % at)
        writer.send(b"q0")
        writer.send(b"strange")
        writer.send(b"q1")
        hub._read()
        assert order[:5] == [b"n0", b"q0", b"strange", b"n1", b"q1"]
        while hub._waiting.bytes:
            hub._go_on()
        assert [each for each in order if each[:1] == b"n"] == [b"n%d" % at for at in range(300)]


async def test_a_turn_ends_after_its_time_and_goes_on_when_the_others_had_theirs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quicsocket, "TURN_S", 0.0)
    order: list[bytes] = []
    with sockets(order, {b"n": Node(b"n", order)}) as (writer, hub):
        for _ in range(9):
            writer.send(b"n")
        hub._read()
        assert len(order) < 9
        hub._read()
        assert len(order) < 9, "what is to go on does so by itself, once"
        hub._go_on()


async def test_one_that_looks_gets_what_has_come_for_it_and_nothing_else() -> None:
    order: list[bytes] = []
    nodes = {name: Node(name, order) for name in (b"n", b"q")}
    with sockets(order, nodes) as (writer, hub):
        for data in (b"n0", b"q0", b"n1", b"q1"):
            writer.send(data)
        hub.look(nodes[b"q"])
        assert order == [b"q0", b"q1"]
        hub._loop.remove_reader(hub._sock)  # nothing more comes, and the kernel has nothing to tell
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == [b"q0", b"q1", b"n0", b"n1"]


async def test_one_that_looks_does_so_for_a_turn_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has much here and acknowledges nothing would look all the time."""
    monkeypatch.setattr(quicsocket, "TURN_S", 0.0)
    order: list[bytes] = []
    nodes = {b"n": Node(b"n", order)}
    with sockets(order, nodes) as (writer, hub):
        for _ in range(9):
            writer.send(b"n")
        hub.look(nodes[b"n"])
        assert 0 < len(order) < 9
        assert hub._waiting.bytes == (9 - len(order)) * BASE_BYTES


def test_what_is_over_its_share_is_lost_and_the_others_keep_theirs() -> None:
    waiting, node, other = Waiting(), Node(b"n", []), Node(b"q", [])
    for at in range(OWN_BYTES // BASE_BYTES + 1):
        waiting.put(node, (b"%d" % at, WHENCE))
    for _ in range(STRANGE_BYTES // BASE_BYTES + 1):
        waiting.put(None, (b"strange", WHENCE))
    waiting.put(other, (b"mine", WHENCE))
    assert waiting.bytes == OWN_BYTES + STRANGE_BYTES + BASE_BYTES
    assert waiting.next() == (node, (b"0", WHENCE))
    assert waiting.next() == (None, (b"strange", WHENCE))
    assert waiting.next() == (other, (b"mine", WHENCE))
    assert waiting.next() == (node, (b"1", WHENCE))
    assert waiting.take(node) == (b"2", WHENCE)
    assert waiting.take(other) is None
    assert waiting.bytes == OWN_BYTES - 3 * BASE_BYTES + STRANGE_BYTES - BASE_BYTES


def test_what_waits_is_counted_in_bytes_and_small_ones_as_more_than_they_are() -> None:
    for size in (1, BASE_BYTES, LARGEST_BYTES):
        waiting, node, came = Waiting(), Node(b"n", []), 0
        for _ in range(2 * OWN_BYTES // BASE_BYTES):
            waiting.put(node, (bytes(size), WHENCE))
        assert OWN_BYTES <= waiting.bytes < OWN_BYTES + max(size, BASE_BYTES)
        while waiting.take(node) is not None:
            came += size
        assert waiting.bytes == 0
        assert came < OWN_BYTES + LARGEST_BYTES


async def test_all_together_are_bounded_and_the_rest_stays_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quicsocket, "ALL_BYTES", 3 * BASE_BYTES)
    order: list[bytes] = []
    with sockets(order, {}) as (writer, hub):
        for _ in range(5):
            writer.send(b"x")
        hub._drain()
        assert hub._waiting.bytes == 3 * BASE_BYTES
        hub._serve()
        hub._read()
        assert len(order) == 5
