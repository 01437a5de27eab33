"""
The emulated line against what it claims: its own arithmetic by tables, and real ICMP, UDP and TCP through it.

The kernel's stacks are at both ends, so these need root and TUN devices; elsewhere they are skipped, with the reason.
"""

import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.harness.badline import BadLine, Quality, Way, why_not

needs_root = pytest.mark.skipif(bool(why_not()), reason=f"no bad line can be made here: {why_not()}")
WITHIN_S = 10.0


def test_a_line_with_a_rate_gives_each_packet_its_time_and_drops_what_has_no_room() -> None:
    way = Way(1)
    way.quality = Quality(rate=8000, delay_s=0.1, queue_bytes=3000)
    assert way.offer(1000, 5.0) == [6.1]
    assert way.offer(1000, 5.0) == [7.1]
    assert way.offer(1000, 5.0) == [8.1]
    assert way.offer(1000, 5.0) == []
    assert way.offer(500, 6.5) == [8.6]
    assert (way.counts.packets, way.counts.dropped) == (5, 1)


def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    way = Way(2)
    way.quality = Quality(delay_s=0.1, jitter_s=0.05)
    arrivals = [at for number in range(1000) for at in way.offer(100, number / 1000)]
    assert arrivals == sorted(arrivals)
    way.quality = Quality(delay_s=0.1, reorder=0.1)
    arrivals = [at for number in range(1000) for at in way.offer(100, 2 + number / 1000)]
    late = sum(first > second for first, second in itertools.pairwise(arrivals))
    assert 50 < late < 150


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
def test_as_many_are_lost_and_doubled_as_was_said(share: float) -> None:
    way = Way(3)
    way.quality = Quality(loss=share, duplicate=share)
    arrived = sum(len(way.offer(100, 0.0)) for _ in range(20_000))
    assert abs(way.counts.lost / 20_000 - share) < 0.2 * share
    assert abs(way.counts.duplicated / 20_000 - share * (1 - share)) < 0.2 * share
    assert arrived == 20_000 - way.counts.lost + way.counts.duplicated


@pytest.fixture(scope="module")
def shared() -> Iterator[BadLine]:
    with BadLine() as line:
        yield line


@pytest.fixture
def line(shared: BadLine) -> BadLine:
    shared.reset()
    return shared


def ping(line: BadLine) -> float:
    """Seconds until the other kernel's answer."""
    with line.edge, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.settimeout(WITHIN_S)
        head = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, 1)
        total = sum(struct.unpack("!4H", head))
        total = (total >> 16) + (total & 0xFFFF)
        began = time.perf_counter()
        sock.sendto(head[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[4:], (line.cloud.address, 0))
        while sock.recv(256)[20] != 0:  # an echo reply
            pass
        return time.perf_counter() - began


@needs_root
@pytest.mark.parametrize("delay_s", [0.025, 0.1])
def test_a_ping_takes_twice_the_delay(line: BadLine, delay_s: float) -> None:
    line.set(delay_s=delay_s)
    # A machine that is busy may add to any of them, and takes from none: so as many as it takes for one that it let be.
    # A line that delays one way twice takes three times the delay.
    most = max(2 * delay_s + 0.05, 3 * delay_s)
    by, took = time.monotonic() + WITHIN_S, [ping(line)]
    while min(took) >= most and time.monotonic() < by:
        took.append(ping(line))
    assert 2 * delay_s <= min(took) < most


@needs_root
def test_datagrams_are_lost_and_doubled_by_the_share_and_a_blackhole_swallows_all(line: BadLine) -> None:
    with line.cloud:
        sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sink.bind((line.cloud.address, 0))
    with line.edge:
        source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sink, source:
        sink.settimeout(WITHIN_S)
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

        def arrived(count: int, upto: int) -> list[int]:
            """Numbers that came of `count` datagrams; `upto` is told on a good line when all are sent."""
            before = line.counts()["up"]
            for number in range(count):
                source.sendto(struct.pack("!I", number), sink.getsockname())
                if number % 50 == 0:
                    line.counts()  # a device holds 500 packets: those before are taken from it once this is answered
            after = line.counts()["up"]
            line.reset()
            source.sendto(struct.pack("!I", upto), sink.getsockname())
            numbers = []
            while (number := struct.unpack("!I", sink.recv(64))[0]) != upto:
                numbers.append(number)
            assert after.packets - before.packets == count
            assert len(numbers) == count - (after.lost - before.lost) + after.duplicated - before.duplicated
            return numbers

        line.set(loss=0.2, duplicate=0.1, way="up")
        numbers = arrived(2000, 99_999)
        assert 0.15 < 1 - len(set(numbers)) / 2000 < 0.25
        assert 0.05 < len(numbers) / len(set(numbers)) - 1 < 0.15
        line.set(blackhole=True, way="up")
        assert arrived(50, 99_998) == []


@needs_root
def test_a_tcp_stream_gets_its_rate_and_not_more(line: BadLine) -> None:
    rate, size = 2_000_000, 500_000
    line.set(rate=rate, way="down", queue_bytes=32 << 10)
    line.set(delay_s=0.01)
    with line.cloud:
        server = socket.create_server((line.cloud.address, 0))

    def send() -> None:
        peer, _ = server.accept()
        with peer:
            peer.sendall(bytes(size))

    def got() -> float:
        """Bits a second of one stream."""
        thread = threading.Thread(target=send)
        thread.start()
        with line.edge, socket.create_connection(server.getsockname(), WITHIN_S) as client:
            began, left = time.perf_counter(), size
            while data := client.recv(1 << 16):
                left -= len(data)
            lasted = time.perf_counter() - began
        thread.join(WITHIN_S)
        assert left == 0
        return size * 8 / lasted

    with server:
        # A machine that is busy makes any of them slower, and none quicker.
        by, rates = time.monotonic() + 2 * WITHIN_S, [got()]
        while max(rates) <= 0.6 * rate and time.monotonic() < by:
            rates.append(got())
    assert 0.6 * rate < max(rates) < rate
