"""The driver for OPC UA against a real server in a process of its own, with real certificates."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID

from apimachinery.devices import PropertyModel, PropertyType
from apimachinery.objects import JSON
from mappers.driver import (
    BadConfig,
    Device,
    DeviceSilent,
    Property,
    Reading,
    Sink,
    SubscribingDriver,
    Value,
    WriteRefused,
)
from mappers.opcua import NODES_PER_REQUEST, OpcUa
from tests.harness.opcua_device import PASSWORD, USER
from tests.harness.server import Server

pytestmark = pytest.mark.timeout(240)  # a server starts in three seconds of processor time, some tests start two

DEADLINE_S = 20.0
PLANT = {
    "temperature": "FLOAT",
    "counter": "INT",
    "speed": "INT",
    "single": "DOUBLE",
    "name": "STRING",
    "pump": "BOOLEAN",
    "label": "STRING",
    "moment": "STRING",
    "blob": "BYTES",
    "list": "STRING",
    "serial": "STRING",
    "locked": "INT",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server("tests.harness.opcua_device", "0") as one:
        yield one


def a_device(server: Server, properties: Mapping[str, str] = PLANT, collect_s: float = 0.1, **settings: JSON) -> Device:
    return Device(
        "default/plant",
        {"url": f"opc.tcp://127.0.0.1:{server.port}/device", "timeout": 5, **settings},
        {
            name: Property(
                PropertyModel(name, PropertyType(kind), True, "", "", ""),
                {"nodeID": f"ns=2;s={name}"},
                collect_s,
                60.0,
                True,
                0.0,
            )
            for name, kind in properties.items()
        },
    )


class Listener:
    """What a subscription told."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.sink = Sink(names, lambda: None)
        self.heard: dict[str, Reading | None] = {}
        self.lost: Exception | None = None
        self.words = 0

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}; heard {self.heard}, {self.lost}"
            await asyncio.sleep(0.01)
            if self.sink.has_word() and self.lost is None:
                self.words += 1
                try:
                    self.heard |= self.sink.collect().readings
                except DeviceSilent as exc:
                    self.lost = exc

    def value(self, name: str) -> Value | None:
        reading = self.heard.get(name)
        return None if reading is None else reading.value


@asynccontextmanager
async def connected(device: Device) -> AsyncIterator[OpcUa]:
    driver = OpcUa(device)
    try:
        await driver.connect()
        yield driver
    finally:
        await driver.close()


async def command(server: Server, what: str) -> None:
    async with connected(a_device(server, {"command": "STRING"})) as driver:
        await driver.write("command", what)


async def test_every_type_is_read_with_the_devices_time(server: Server) -> None:
    async with connected(a_device(server)) as driver:
        readings = await driver.read(list(PLANT))
    assert {name: reading.value for name, reading in readings.items() if name not in ("counter", "speed")} == {
        "temperature": 21.5,
        "single": 21.3,
        "name": "Fairlead",
        "pump": True,
        "label": "Kessel",
        "moment": "2026-01-02T03:04:05+00:00",
        "blob": b"\x01\x02",
        "list": "[1,2,3]",
        "serial": "00000000-0000-0000-0000-000000000007",
        "locked": 1,
    }
    at_ms = readings["counter"].at_ms
    assert at_ms is not None
    assert abs(at_ms / 1000 - time.time()) < 60


async def test_changes_are_told_without_asking(server: Server) -> None:
    device = a_device(server)
    listener = Listener(PLANT)
    async with connected(device) as driver:
        assert isinstance(driver, SubscribingDriver)
        assert set(await driver.subscribe(listener.sink)) == set(PLANT)
        await listener.until(lambda: listener.heard.keys() == PLANT.keys(), "the first values")
        first = listener.value("counter")
        assert isinstance(first, int)
        await listener.until(lambda: isinstance(now := listener.value("counter"), int) and now > first + 20, "changes")
        await driver.write("speed", 17)
        await listener.until(lambda: listener.value("speed") == 17, "what was written")
        await driver.write("speed", 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speed", 65535),
        ("single", 0.7),
        ("name", "Grüße"),
        ("pump", False),
        ("label", "Pumpe"),
        ("moment", "2027-01-01T00:00:00+00:00"),
        ("blob", b"\xff" * 100),
        ("serial", "12345678-1234-5678-1234-567812345678"),
    ],
)
async def test_what_is_written_is_read_back(server: Server, name: str, value: Value) -> None:
    async with connected(a_device(server)) as driver:
        before = (await driver.read([name]))[name].value
        await driver.write(name, value)
        assert (await driver.read([name]))[name].value == value
        await driver.write(name, before)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("locked", 2, r"locked: opc\.tcp://.* refuses 2 for ns=2;s=locked: Bad"),
        ("speed", -1, "speed: -1 does not fit into the node's type UInt16"),
        ("nothere", 1, "refuses 1 for ns=2;s=nothere: BadNodeIdUnknown"),
        ("list", "[1]", r"cannot be written to a node of type Int32"),
    ],
)
async def test_a_refused_write_names_property_and_node(server: Server, name: str, value: Value, words: str) -> None:
    async with connected(a_device(server, {**PLANT, "nothere": "INT"})) as driver:
        await driver.read(["list"])
        with pytest.raises(WriteRefused, match=words):
            await driver.write(name, value)


async def test_a_node_that_is_not_there_is_polled_told_once_and_disturbs_no_other(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    names = {"speed": "INT", "nothere": "INT"}
    async with connected(a_device(server, names)) as driver:
        assert await driver.subscribe(Listener(names).sink) == ["speed"]
        for _ in range(3):
            assert set(await driver.read(list(names))) == {"speed"}
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert vars(record)["property"] == "nothere"
    assert "ns=2;s=nothere has no value: BadNodeIdUnknown" in vars(record)["reason"]


async def test_a_device_of_which_nothing_can_be_read_counts_as_silent(server: Server) -> None:
    async with connected(a_device(server, {"nothere": "INT"})) as driver:
        with pytest.raises(DeviceSilent, match="no property can be read; nothere: ns=2;s=nothere has no value"):
            await driver.read(["nothere"])


async def test_a_bad_status_takes_the_value_away_until_it_is_mended(server: Server) -> None:
    listener = Listener(PLANT)
    async with connected(a_device(server)) as driver:
        await driver.subscribe(listener.sink)
        await listener.until(lambda: listener.value("temperature") == 21.5, "its value")
        await command(server, "break temperature")
        await listener.until(lambda: listener.heard["temperature"] is None, "the loss of its value")
        assert "temperature" not in await driver.read(["temperature", "speed"])
        await command(server, "mend temperature")
        await listener.until(lambda: listener.value("temperature") == 21.5, "its value again")


async def test_more_nodes_than_fit_one_request_are_asked_for_in_portions(server: Server) -> None:
    names = {f"p{number}": "INT" for number in range(NODES_PER_REQUEST + 20)}
    device = a_device(server, names)
    for each in device.properties.values():
        each.settings["nodeID"] = "ns=2;s=speed"  # type: ignore[index]  # one node for all of them
    async with connected(device) as driver:
        readings = await driver.read(list(names))
        assert readings.keys() == names.keys()


async def test_a_killed_server_is_noticed_and_found_again() -> None:
    with Server("tests.harness.opcua_device", "0") as server:
        device = a_device(server)
        driver, listener = OpcUa(device), Listener(PLANT)
        await driver.connect()
        await driver.subscribe(listener.sink)
        await listener.until(lambda: listener.words, "a word")
        server.kill()
        await listener.until(lambda: listener.lost is not None, "the loss")
        assert "the connection is lost" in str(listener.lost)
        await driver.close()
        with pytest.raises(OSError, match="Connect call failed"):
            await driver.connect()
        await driver.close()
        server.start()
        listener = Listener(PLANT)
        await driver.connect()
        await driver.subscribe(listener.sink)
        await listener.until(lambda: listener.value("speed") == 5, "a word of the new one")
        await driver.close()
    assert [task.get_name() for task in asyncio.all_tasks()] == [asyncio.current_task().get_name()]  # type: ignore[union-attr]


async def test_a_server_that_falls_silent_is_noticed() -> None:
    with Server("tests.harness.opcua_device", "0") as server:
        listener = Listener(PLANT)
        async with connected(a_device(server, timeout=2)) as driver:
            await driver.subscribe(listener.sink)
            await listener.until(lambda: listener.words, "a word")
            os.kill(server.pid, signal.SIGSTOP)
            await listener.until(lambda: listener.lost is not None, "the loss")
            with pytest.raises((DeviceSilent, OSError)):
                await driver.read(["speed"])
            began = time.monotonic()
        assert time.monotonic() - began < 2, "a silent server holds up the goodbye: for `timeout` at least"


async def test_a_subscription_that_the_server_forgot_is_made_again(server: Server) -> None:
    listener = Listener(PLANT)
    async with connected(a_device(server, timeout=1)) as driver:
        await driver.subscribe(listener.sink)
        await listener.until(lambda: listener.words, "a word")
        await command(server, "end")
        last = (await driver.read(["counter"]))["counter"].value
        assert isinstance(last, int)
        await listener.until(
            lambda: listener.lost or (isinstance(now := listener.value("counter"), int) and now > last + 10),
            "more words",
        )


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"ERRF\xff\xff\xff\xff" + b"x" * 100])
async def test_rubbish_and_silence_at_the_door_are_silence(answer: bytes) -> None:
    async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # where the driver has given up before it read this
            await reader.read(4)
            writer.write(answer)
            await reader.read()
        writer.close()

    fake = await asyncio.start_server(rubbish, "127.0.0.1", 0)
    port = fake.sockets[0].getsockname()[1]
    device = Device("default/plant", {"url": f"opc.tcp://127.0.0.1:{port}", "timeout": 0.3}, {})
    driver = OpcUa(device)
    with pytest.raises((DeviceSilent, OSError)):
        await driver.connect()
    await driver.close()
    fake.close()
    async with asyncio.timeout(DEADLINE_S):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)


# --- security


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server that takes encrypted sessions of one user only, and the directory of certificates."""
    directory = tmp_path_factory.mktemp("certificates")
    for name, usage in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
        ("other", ExtendedKeyUsageOID.SERVER_AUTH),
    ):
        asyncio.run(
            setup_self_signed_certificate(
                directory / f"{name}.pem",
                directory / f"{name}.der",
                f"urn:test:{name}",
                socket.gethostname(),
                [usage],
                {},
            )
        )
    (directory / "password").write_text(PASSWORD + "\n")
    (directory / "wrong").write_text("guess\n")
    with pytest.MonkeyPatch.context() as patch, Server("tests.harness.opcua_device", "0", str(directory)) as one:
        patch.setenv("FAIRLEAD_SECRETS", str(directory))
        yield one, directory


def a_secured_device(secured: tuple[Server, Path], **settings: JSON) -> Device:
    server, directory = secured
    return a_device(
        server,
        **{
            "userName": USER,
            "password": "password",
            "securityPolicy": "Basic256Sha256",
            "securityMode": "SignAndEncrypt",
            "certificate": str(directory / "client.der"),
            "privateKey": str(directory / "client.pem"),
            "remoteCertificate": str(directory / "server.der"),
            **settings,
        },
    )


async def test_an_encrypted_session_of_a_user_reads_and_listens(secured: tuple[Server, Path]) -> None:
    listener = Listener(PLANT)
    async with connected(a_secured_device(secured)) as driver:
        assert driver._client is not None
        assert driver._client.application_uri == "urn:test:client"
        await driver.subscribe(listener.sink)
        await listener.until(lambda: listener.value("speed") == 5, "a value")
        await driver.write("speed", 6)
        await listener.until(lambda: listener.value("speed") == 6, "what was written")
        await driver.write("speed", 5)


async def test_a_wrong_password_is_a_matter_of_configuration_and_not_shown(secured: tuple[Server, Path]) -> None:
    driver = OpcUa(a_secured_device(secured, password=str(secured[1] / "wrong")))
    with pytest.raises(BadConfig, match="refuses the login of operator: Bad") as caught:
        await driver.connect()
    assert "guess" not in str(caught.value)
    await driver.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"remoteCertificate": "other.der"}, "."),
        ({"remoteCertificate": "nowhere.der"}, "nowhere.der"),
        ({"password": "nowhere"}, "nowhere"),
        ({"password": "../passwd"}, "password must be a file in the mapper's secrets directory"),
    ],
)
async def test_a_server_that_is_not_the_one_and_a_missing_file_end_the_connection(
    secured: tuple[Server, Path], settings: Mapping[str, str], words: str
) -> None:
    files = {name: str(secured[1] / file) for name, file in settings.items()}
    driver = OpcUa(a_secured_device(secured, timeout=2, **files))
    with pytest.raises((DeviceSilent, OSError), match=words):
        await driver.connect()
    await driver.close()


async def test_a_file_that_is_no_certificate_is_a_matter_of_configuration(secured: tuple[Server, Path]) -> None:
    driver = OpcUa(a_secured_device(secured, certificate=str(secured[1] / "password")))
    with pytest.raises(BadConfig, match="certificate, privateKey or remoteCertificate is of no use"):
        await driver.connect()
    await driver.close()


async def test_a_server_that_wants_encryption_is_not_talked_to_without(secured: tuple[Server, Path]) -> None:
    driver = OpcUa(a_device(secured[0]))
    with pytest.raises((DeviceSilent, OSError)):
        await driver.connect()
    await driver.close()


@pytest.mark.parametrize("node_id", ["", "speed", "ns=x;s=speed", "ns=2", 5])
def test_a_node_id_that_is_none_is_named_with_its_property(node_id: JSON) -> None:
    model = PropertyModel("speed", PropertyType.INT, True, "", "", "")
    device = Device(
        "default/plant",
        {"url": "opc.tcp://10.0.0.4:4840"},
        {"speed": Property(model, {"nodeID": node_id}, 1.0, 60.0, True, 0.0)},
    )
    with pytest.raises(BadConfig, match=r"property speed: visitors\.configData\.nodeID must be"):
        OpcUa(device)


def test_kubeedges_comma_in_a_node_id_is_understood() -> None:
    model = PropertyModel("speed", PropertyType.INT, True, "", "", "")
    settings: dict[str, JSON] = {"nodeID": "ns=1,i=1005", "browseName": "Speed"}
    device = Device(
        "default/plant",
        {"url": "opc.tcp://10.0.0.4:4840"},
        {"speed": Property(model, settings, 1.0, 60.0, True, 0.0)},
    )
    assert OpcUa(device)._nodes["speed"].to_string() == "ns=1;i=1005"
