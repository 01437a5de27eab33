"""Brokers' addresses, and connections to them: URLs, passwords, certificates, against a real mosquitto with TLS."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from componentbase.brokers import BrokerAccessError, BrokerAddress, dial
from componentbase.endpoints import Endpoint
from tests.harness.mosquitto import Mosquitto
from tests.harness.tls import BrokerFiles

CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"
CONNACK = b"\x20\x02\x00\x00"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://h:1", BrokerAddress(Endpoint("h", 1))),
        ("mqtt://h", BrokerAddress(Endpoint("h", 1883))),
        ("mqtts://h", BrokerAddress(Endpoint("h", 8883), tls=True)),
        ("mqtt://[::1]:9/", BrokerAddress(Endpoint("::1", 9))),
        ("mqtt://me@h:1", BrokerAddress(Endpoint("h", 1), username="me")),
        ("mqtts://me:p%40ss:w@h:1", BrokerAddress(Endpoint("h", 1), True, "me", "p@ss:w")),
    ],
)
def test_a_url_says_where_the_broker_is(url: str, address: BrokerAddress) -> None:
    assert BrokerAddress.parse(url) == address
    if address.password is None:
        assert BrokerAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "mqtt://HOST:PORT"),
        ("127.0.0.1:1883", "mqtt://HOST:PORT"),
        ("http://h", "mqtts://HOST:PORT for TLS"),
        ("mqtt://", "HOST:PORT"),
        ("mqtt://:1883", "does not say which broker"),
        ("mqtt://h:0", "does not say which broker"),
        ("mqtt://h:99999", "65535"),
        ("mqtt://h:x", "port"),
        ("mqtts://:secret@h:1", "user's name"),
        ("mqtt://h:1/path", "port"),
    ],
)
def test_a_url_that_says_nothing_useful_is_refused_with_the_right_form(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"mqtts?://|HOST:PORT") as caught:
        BrokerAddress.parse(url)
    assert says in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_password_is_never_shown() -> None:
    address = BrokerAddress.parse("mqtt://me:secret@h:1")
    assert "secret" not in f"{address} {address!r}"


# ---- passwords


def address(**settings: Any) -> BrokerAddress:
    return BrokerAddress(Endpoint("h", 1), username="me", **settings)


def test_a_password_is_a_files_first_line_and_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first pässword\r\nand a comment\n")
    one = address(password="of the URL", password_file=file)
    assert one.secret() == "first pässword"
    file.write_text("second")
    assert one.secret() == "second"


def test_systemd_hands_a_password_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert address().secret() is None
    (tmp_path / "mqtt-password").write_text("from systemd\n")
    assert address().secret() == "from systemd"
    assert address(password="of the URL").secret() == "of the URL"
    assert BrokerAddress(Endpoint("h", 1)).secret() is None


@pytest.mark.parametrize(("content", "says"), [(b"\nx", "empty"), (b"x" * 65536, "too long"), (b"\xff", "UTF-8")])
def test_a_password_file_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    with pytest.raises(BrokerAccessError, match=says) as caught:
        address(password_file=file).check()
    assert str(file) in str(caught.value)
    assert "xxx" not in str(caught.value)
    with pytest.raises(BrokerAccessError, match="No such file"):
        address(password_file=tmp_path / "none").check()


# ---- certificates


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> BrokerFiles:
    return BrokerFiles(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secure(files: BrokerFiles) -> Iterator[Mosquitto]:
    with Mosquitto(*files.mosquitto()) as broker:
        yield broker


def test_what_does_not_go_together_is_refused_before_anything_is_tried(files: BrokerFiles, tmp_path: Path) -> None:
    here = Endpoint("127.0.0.1", 1)
    for wrong, says in (
        (BrokerAddress(here, authority=files.authority), "write mqtts://"),
        (BrokerAddress(here, tls=True, key=files.key), "without its certificate"),
        (BrokerAddress(here, password_file=files.key), "without a user"),
        (BrokerAddress(here, tls=True, authority=tmp_path / "none"), "none: cannot be read"),
        (BrokerAddress(here, tls=True, authority=files.key), "PEM form"),
        (BrokerAddress(here, tls=True, certificate=files.certificate, key=files.client_key), "belong together"),
    ):
        with pytest.raises(BrokerAccessError, match=says):
            wrong.check()
    BrokerAddress(
        here, tls=True, authority=files.authority, certificate=files.client_certificate, key=files.client_key
    ).check()
    BrokerAddress(here, tls=True).check()


async def greet(broker: BrokerAddress) -> bytes:
    """What the broker answers to a CONNECT, over a connection that dial() made."""
    sock = await dial(broker)
    try:
        sock.send(CONNECT)
        async with asyncio.timeout(10):
            while True:
                try:
                    return sock.recv(16)
                except (BlockingIOError, ssl.SSLWantReadError):
                    await asyncio.sleep(0.005)
    finally:
        sock.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_secure_connection_is_made(files: BrokerFiles, secure: Mosquitto, host: str) -> None:
    assert await greet(BrokerAddress(Endpoint(host, secure.port), tls=True, authority=files.authority)) == CONNACK


async def test_nothing_but_the_ca_that_was_named_is_trusted(secure: Mosquitto, tmp_path: Path) -> None:
    other = BrokerFiles(tmp_path)
    for authority in (other.authority, None):
        with pytest.raises(OSError, match="certificate is not to be trusted"):
            await dial(BrokerAddress(Endpoint("localhost", secure.port), tls=True, authority=authority))


async def test_a_certificate_of_another_host_is_not_trusted(tmp_path: Path) -> None:
    files = BrokerFiles(tmp_path, names=["elsewhere.example"])
    with Mosquitto(*files.mosquitto()) as broker, pytest.raises(OSError, match=r"not to be trusted: .*127\.0\.0\.1"):
        await dial(BrokerAddress(Endpoint("127.0.0.1", broker.port), tls=True, authority=files.authority))


async def test_a_broker_that_asks_for_a_certificate_gets_ours(files: BrokerFiles) -> None:
    with Mosquitto(*files.mosquitto("require_certificate true")) as broker:
        without = BrokerAddress(Endpoint("localhost", broker.port), tls=True, authority=files.authority)
        with pytest.raises(OSError, match=r"."):
            assert await greet(without) == b"", "TLS 1.3 tells of the missing certificate with the first read"
            raise ConnectionError("closed")
        assert await greet(replace(without, certificate=files.client_certificate, key=files.client_key)) == CONNACK


async def test_a_broker_without_tls_is_told_from_a_wrong_certificate(files: BrokerFiles) -> None:
    with Mosquitto() as plain:
        with pytest.raises(OSError, match="does not speak TLS on this port"):
            await dial(BrokerAddress(Endpoint("localhost", plain.port), tls=True, authority=files.authority))
        assert await greet(BrokerAddress(Endpoint("localhost", plain.port))) == CONNACK


async def test_a_handshake_that_never_ends_can_be_given_up(files: BrokerFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        there = BrokerAddress(Endpoint("127.0.0.1", mute.getsockname()[1]), tls=True, authority=files.authority)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await dial(there)
