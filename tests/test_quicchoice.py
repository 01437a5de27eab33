"""Whether the next dial goes over QUIC."""

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from edgehub import quicchoice
from edgehub.quicchoice import RETRY_S, Files, QuicChoice
from link.errors import LinkClosed
from link.peer import Role
from tests.harness.quic import Certificates, quic_hub
from tests.harness.sides import Side

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture
def choice(certificates: Certificates, tmp_path: Path) -> Callable[..., QuicChoice]:
    files = Files(*certificates.files(tmp_path, "n"))

    def made(port: int, *, is_only: bool = False, at: float = NOW) -> QuicChoice:
        return QuicChoice(port, files, is_only=is_only, memory=tmp_path / "memory", draw=lambda: 0.25, now=lambda: at)

    return made


async def test_where_a_hub_answers_quic_it_is_and_nothing_is_remembered_against_it(
    certificates: Certificates, choice: Callable[..., QuicChoice], tmp_path: Path
) -> None:
    hub = Side(Role.HUB)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        for is_only in (False, True):
            edge = Side(Role.EDGE)
            assert await choice(listener.port, is_only=is_only).dial("127.0.0.1", edge.opened)
            assert edge.pump.transport.kind == "quic"
    assert not (tmp_path / "memory").exists()


async def test_blocked_udp_costs_less_than_a_second_once_and_the_next_process_nothing(
    choice: Callable[..., QuicChoice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = Side(Role.EDGE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        first = choice(port)
        async with asyncio.timeout(1.0):
            assert not await first.dial("127.0.0.1", edge.opened)
        await first.fell_back()
        assert json.loads((tmp_path / "memory").read_bytes()) == {"quicNotBefore": NOW + 0.75 * RETRY_S}

        asked: list[int] = []

        async def counted(host: str, port: int) -> None:
            asked.append(port)

        monkeypatch.setattr("link.quicprobe.probe", counted)
        assert not await first.dial("127.0.0.1", edge.opened)
        assert not await choice(port).dial("127.0.0.1", edge.opened)
        assert asked == []
        assert not await choice(port, at=NOW + RETRY_S).dial("127.0.0.1", edge.opened)
        # A clock that was years ahead when it was written down does not keep it off for years.
        assert not await choice(port, at=NOW - 10 * RETRY_S).dial("127.0.0.1", edge.opened)
        assert asked == [port, port]


async def test_a_hub_that_is_down_altogether_says_nothing_against_quic(
    choice: Callable[..., QuicChoice], tmp_path: Path, unused_udp_port: int
) -> None:
    made = choice(unused_udp_port)
    assert not await made.dial("127.0.0.1", Side(Role.EDGE).opened)
    assert not (tmp_path / "memory").exists()  # the websocket did not connect either: nobody called fell_back()
    async with asyncio.timeout(5):
        assert not await made.dial("nowhere.invalid", Side(Role.EDGE).opened)


@pytest.mark.parametrize("content", [b"", b"{}", b"rubbish", b'{"quicNotBefore": "soon"}', b"[1]"])
async def test_a_damaged_memory_is_none(
    choice: Callable[..., QuicChoice], tmp_path: Path, unused_udp_port: int, content: bytes
) -> None:
    (tmp_path / "memory").write_bytes(content)
    assert choice(unused_udp_port)._not_before == 0


async def test_where_nothing_else_is_wanted_a_failure_is_told(
    choice: Callable[..., QuicChoice], monkeypatch: pytest.MonkeyPatch, unused_udp_port: int
) -> None:
    monkeypatch.setattr("link.quic.OPEN_S", 0.2)
    with pytest.raises(LinkClosed, match="no QUIC connection"):
        await choice(unused_udp_port, is_only=True).dial("127.0.0.1", Side(Role.EDGE).opened)


async def test_without_the_library_the_websocket_is_dialled_and_the_log_says_what_to_install(
    choice: Callable[..., QuicChoice], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quicchoice, "_PACKAGE", "no_such_package")
    with caplog.at_level(logging.INFO):
        assert not await choice(1).dial("127.0.0.1", Side(Role.EDGE).opened)
    assert "fairlead[edge,quic]" in str(caplog.records[-1].__dict__["reason"])
    with pytest.raises(LinkClosed, match="not installed"):
        await choice(1, is_only=True).dial("127.0.0.1", Side(Role.EDGE).opened)
