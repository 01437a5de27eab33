"""Whether a QUIC server answers, for one packet."""

import asyncio
import socket
import subprocess
import sys

from link.pathmtu import BASE_BYTES
from link.peer import Role
from link.quicprobe import Found, answers, probe, question
from tests.harness.quic import Certificates, quic_hub
from tests.harness.sides import Side

OURS, THEIRS = b"ours-ours", b"theirs"


async def test_a_hub_with_quic_answers_under_any_of_its_names() -> None:
    async with quic_hub(Side(Role.HUB).opened, Certificates()) as listener:
        for host in ("127.0.0.1", "localhost"):
            found = await probe(host, listener.port)
            assert found == Found(socket.AF_INET, ("127.0.0.1", listener.port))


async def test_where_nobody_listens_the_kernel_says_so_at_once(unused_udp_port: int) -> None:
    async with asyncio.timeout(5):
        assert await probe("127.0.0.1", unused_udp_port, try_s=60.0) is None


async def test_silence_is_two_tries_and_no_more() -> None:
    """UDP is blocked: nothing comes back, and that is known within a second."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.setblocking(False)
        assert await probe("127.0.0.1", silent.getsockname()[1], try_s=0.03) is None
        assert [len(silent.recv(2048)) for _ in range(2)] == [BASE_BYTES] * 2


def test_only_an_answer_to_the_very_question_counts() -> None:
    answer = b"\x80" + bytes(4) + b"\x09" + OURS + b"\x06" + THEIRS + b"\0\0\0\1"
    assert answers(answer, OURS, THEIRS)
    assert not answers(b"\0" + answer[1:], OURS, THEIRS)
    assert not answers(answer, THEIRS, OURS)
    assert not answers(answer[:9], OURS, THEIRS)
    assert not answers(b"", OURS, THEIRS)
    assert not answers(question(OURS, THEIRS), OURS, THEIRS)


def test_it_needs_no_quic_library() -> None:
    code = "import sys, link.quicprobe, edgehub.quicchoice; print([n for n in sys.modules if n.startswith('aioquic')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
