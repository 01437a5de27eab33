"""Connecting: the first address that answers, no waiting for a resolver that hangs, no waiting for full packets."""

import asyncio
import socket
import ssl
import subprocess
import sys
import time

import pytest

from componentbase import tcp


async def test_the_first_address_that_takes_a_connection_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        known = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", each.getsockname()) for each in (nobody, server)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
        with await tcp.connect("two.example", 1) as sock:
            assert sock.getpeername() == server.getsockname()
            assert not sock.getblocking()
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known[:1])
        with pytest.raises(ConnectionRefusedError):
            await tcp.connect("one.example", 1)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="acknowledgements are delayed at will on Linux only")
async def test_a_server_behind_nagles_algorithm_is_not_kept_waiting() -> None:
    """As mosquitto: two small packets in a row, of which the second waits until the first is acknowledged."""
    slow = {}
    for prompt in (True, False):
        with socket.create_server(("127.0.0.1", 0)) as server:
            sock = await tcp.connect("127.0.0.1", server.getsockname()[1])
            peer, _ = server.accept()
        with sock, peer:
            slow[prompt] = sum([await slowly_answered(sock, peer, prompt) for _ in range(20)])
    assert slow[True] < 10 < slow[False]


async def slowly_answered(sock: socket.socket, peer: socket.socket, prompt: bool) -> bool:
    """A question and its answer in two packets; whether it took as long as a delayed acknowledgement does."""
    loop = asyncio.get_running_loop()
    start = time.monotonic()
    sock.send(b"?")
    assert peer.recv(1) == b"?"
    for part in (b"a", b"b"):
        peer.sendall(part)
    for part in (b"a", b"b"):
        assert await loop.sock_recv(sock, 1) == part
        if prompt:
            tcp.acknowledge_now(sock)
    return time.monotonic() - start > 0.03


def test_a_resolver_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    program = """
import asyncio, socket, time
from componentbase import tcp
socket.getaddrinfo = lambda *_, **__: time.sleep(30)
async def main():
    try:
        async with asyncio.timeout(0.01):
            await tcp.connect("hub.invalid", 1)
    except TimeoutError:
        print("given up")
asyncio.run(main())
"""
    start = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "given up\n", "")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("hub has no address"), "hub has no address"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "wrong version number"),
    ],
)
def test_a_failure_is_told_in_the_systems_words(error: OSError, words: str) -> None:
    assert words in tcp.why(error)
