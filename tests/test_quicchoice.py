"""Whether the next dial goes over QUIC."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from componentbase.doorway import Limits
from edgehub import quicchoice
from edgehub.quicchoice import REFUSED_S, RETRY_S, SILENT_S, Files, QuicChoice
from link import quicprobe
from link.errors import LinkClosed
from link.frames import GoodbyeCode
from link.peer import Role
from link.quic import Quic
from tests.harness.nat import nat
from tests.harness.quic import Certificates, quic_hub
from tests.harness.sides import Side

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture
async def choice(certificates: Certificates, tmp_path: Path) -> AsyncIterator[Callable[..., QuicChoice]]:
    files, memory = Files(*certificates.files(tmp_path, "n")), tmp_path / "memory"
    all_made: list[QuicChoice] = []

    def made(port: int, *, is_only: bool = False, at: float = NOW) -> QuicChoice:
        one = QuicChoice(port, files, is_only=is_only, memory=memory, draw=lambda: 0.25, now=lambda: at)
        all_made.append(one)
        return one

    yield made
    for each in all_made:
        each.close()


def left_alone_s(directory: Path) -> float:
    """For how long QUIC is not tried, as the next process has it."""
    found: float = json.loads((directory / "memory").read_bytes())["quicNotBefore"] - NOW
    return found


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


async def test_a_node_resumes_its_session_until_it_has_another_certificate(
    certificates: Certificates, choice: Callable[..., QuicChoice], tmp_path: Path
) -> None:
    hub = Side(Role.HUB)
    async with quic_hub(hub.opened, certificates) as listener, asyncio.timeout(10):
        made, resumed = choice(listener.port), list[bool]()
        for is_renewed in (False, False, True, False):
            if is_renewed:
                certificates.files(tmp_path, "n")
            edge, hub.lost = Side(Role.EDGE), asyncio.get_running_loop().create_future()
            assert await made.dial("127.0.0.1", edge.opened)
            connection = edge.pump.transport
            assert isinstance(connection, Quic)
            assert made._slot is not None
            while made._slot._kept is None:
                await asyncio.sleep(0.005)
            resumed.append(connection._library.is_resumed)
            edge.pump.close(GoodbyeCode.SHUTDOWN, "")
            await connection.lost
            await hub.lost
        assert resumed == [False, True, False, True]


async def test_blocked_udp_costs_less_than_a_second_once_and_the_next_process_nothing(
    choice: Callable[..., QuicChoice], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = Side(Role.EDGE)
    assert quicprobe.TRIES * quicprobe.TRY_S < 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        first = choice(port)
        async with asyncio.timeout(5):  # neither what comes late is waited for nor a handshake, ten seconds each
            assert not await first.dial("127.0.0.1", edge.opened)
        await first.fell_back()
        assert left_alone_s(tmp_path) == 0.75 * SILENT_S

        asked: list[int] = []

        async def counted(host: str, port: int) -> None:
            asked.append(port)
            raise OSError(0, "counted")

        monkeypatch.setattr("link.quicprobe.ask", counted)
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


async def test_a_line_that_passes_the_probe_and_not_quic_costs_a_second_and_not_ten(
    certificates: Certificates, choice: Callable[..., QuicChoice], tmp_path: Path
) -> None:
    hub = Side(Role.HUB)
    quicchoice._library()  # to import it may take more than a second here
    async with quic_hub(hub.opened, certificates) as listener, nat(listener.port) as between:
        between.lets_in = lambda data: data[1:5] not in (b"\0\0\0\1", b"\x6b\x33\x43\xcf")
        made = choice(between.port)
        async with asyncio.timeout(5):
            assert not await made.dial("127.0.0.1", Side(Role.EDGE).opened)
        await made.fell_back()
    assert left_alone_s(tmp_path) == 0.75 * SILENT_S


async def test_who_is_refused_or_finds_nobody_tries_again_after_a_minute(
    certificates: Certificates, choice: Callable[..., QuicChoice], tmp_path: Path, unused_udp_port: int
) -> None:
    """Too many at the hub's door, and a hub that is just starting."""
    async with quic_hub(Side(Role.HUB).opened, certificates, at_door=Limits(each=0, overall=0)) as listener:
        for port in (listener.port, unused_udp_port):
            (tmp_path / "memory").unlink(missing_ok=True)
            made = choice(port)
            async with asyncio.timeout(5):
                assert not await made.dial("127.0.0.1", Side(Role.EDGE).opened)
                await made.fell_back()
            assert left_alone_s(tmp_path) == 0.75 * REFUSED_S


async def test_an_answer_that_comes_late_takes_the_next_dial_over_quic(
    certificates: Certificates, choice: Callable[..., QuicChoice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round trip longer than the probe waits, as over a satellite."""
    monkeypatch.setattr("link.quicprobe.TRY_S", 0.05)
    monkeypatch.setattr(quicchoice, "DIAL_S", 5.0)
    hub, edge = Side(Role.HUB), Side(Role.EDGE)
    async with quic_hub(hub.opened, certificates) as listener, nat(listener.port) as between, asyncio.timeout(10):
        between.delay_s = 0.1
        made = choice(between.port)
        assert not await made.dial("127.0.0.1", Side(Role.EDGE).opened)
        await made.fell_back()
        assert made._late is not None
        assert await made._late.within(5)
        assert await made.dial("127.0.0.1", edge.opened)
        assert isinstance(edge.pump.transport, Quic)
        assert made._not_before == 0
        await hub.frames.get()
        edge.pump.transport.give_up("the test is over")


@pytest.mark.parametrize(("was_synced", "left_alone"), [(False, RETRY_S), (True, SILENT_S)])
async def test_links_that_carry_nothing_twice_running_leave_the_next_to_the_websocket(
    choice: Callable[..., QuicChoice], tmp_path: Path, was_synced: bool, left_alone: float
) -> None:
    """The handshake passes, and what follows does not; or whoever is quiet is forgotten by the line."""
    made = choice(1)
    for links in ((False,), (False, True)):  # whether each held
        for held in links:
            await made.ended(was_synced=held or was_synced, was_silent=True, after_s=SILENT_S if held else 50.0)
        assert not (tmp_path / "memory").exists(), "that was once, and then one held"
        await made.ended(was_synced=True, was_silent=False, after_s=1.0)
    for _ in range(2):
        await made.ended(was_synced=was_synced, was_silent=True, after_s=50.0)
    assert left_alone_s(tmp_path) == 0.75 * left_alone
    assert not await made.dial("127.0.0.1", Side(Role.EDGE).opened)
    assert not made._failed_for_s, "it was not even tried"


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"rubbish", b'{"quicNotBefore": "soon"}', b"[1]", b'{"quicNotBefore": 1' + b"0" * 400 + b"}"],
)
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
    choice: Callable[..., QuicChoice],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(quicchoice, "_PACKAGE", "no_such_package")
    with caplog.at_level(logging.INFO):
        made = choice(1)
        assert not await made.dial("127.0.0.1", Side(Role.EDGE).opened)
    await made.fell_back()
    assert not (tmp_path / "memory").exists(), "it says nothing of the hub"
    assert "fairlead[edge,quic]" in str(caplog.records[-1].__dict__["reason"])
    with pytest.raises(LinkClosed, match="not installed"):
        await choice(1, is_only=True).dial("127.0.0.1", Side(Role.EDGE).opened)


async def test_what_is_remembered_is_said_and_is_of_one_port(
    certificates: Certificates, choice: Callable[..., QuicChoice], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with quic_hub(Side(Role.HUB).opened, certificates) as listener, asyncio.timeout(10):
        for port, is_tried in ((listener.port, False), (listener.port + 1, True)):
            (tmp_path / "memory").write_text(json.dumps({"quicNotBefore": NOW + 60, "quicPort": port}))
            with caplog.at_level(logging.INFO):
                assert await choice(listener.port).dial("127.0.0.1", Side(Role.EDGE).opened) is is_tried
        [told] = [each for each in caplog.records if each.message.startswith("QUIC is left alone")]
        assert (vars(told)["port"], vars(told)["again_s"]) == (listener.port, 60)
