"""Which broker a node's devices speak with, from its configuration; the rest: test_mqtt_access.py."""

import contextlib
from pathlib import Path

import pytest

from apimachinery.keys import Node
from componentbase.cli import CommandError
from componentbase.endpoints import Endpoint
from edgecore.broker import client_id, open_broker
from edgecore.settings import MqttConfig

NODE = Node("edge-1")


async def test_another_broker_is_spoken_with_as_configured(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        secret = tmp_path / "secret"
        secret.write_text("a password")
        address, server = await open_broker(MqttConfig("mqtts://me@broker:8883", password_file=secret), NODE, stack)
    assert server is None
    assert (str(address.endpoint), address.password_file) == ("broker:8883", secret)


async def test_the_embedded_broker_listens_and_says_where() -> None:
    async with contextlib.AsyncExitStack() as stack:
        address, server = await open_broker(MqttConfig(listen=Endpoint("127.0.0.1", 0)), NODE, stack)
        assert server is not None
        assert address.endpoint == Endpoint("127.0.0.1", server.port)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (MqttConfig("http://broker"), 'mqtt.broker .--mqtt.: .*, or "embedded"'),
        (MqttConfig(key=Path("k")), "mqtt.key is given without mqtt.certificate"),
        (MqttConfig(certificate=Path("/nowhere.crt")), "certificate and key cannot be used ./nowhere.crt.: "),
    ],
)
async def test_what_cannot_work_is_refused(settings: MqttConfig, why: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(CommandError, match=why):
            await open_broker(settings, NODE, stack)


def test_two_nodes_are_two_clients_of_one_broker() -> None:
    assert client_id(NODE) != client_id(Node("edge-2"))
