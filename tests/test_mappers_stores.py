"""Stores over HTTP and MQTT, against servers in processes of their own."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mappers.mqtt import Connection, connect
from mappers.points import PointsRefused
from mappers.pushmethod import MqttPlace, Target, read_push_method
from mappers.stores import credential, open_store
from tests.harness.collector import TOKEN, Collector
from tests.harness.mosquitto import Mosquitto
from tests.test_mappers_mqtt import here
from tests.test_mappers_points import AT_MS, point


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(tmp_path) as one:
        yield one


def http(collector: Collector, path: str = "push", timeout_ms: int = 5000) -> Target:
    host = {"hostName": "http://127.0.0.1", "port": collector.port, "requestPath": path, "timeout": timeout_ms}
    return read_push_method({"http": host}).targets[0]


def influx(collector: Collector) -> Target:
    client = {"url": collector.url, "org": "o", "bucket": "b"}
    method = {"dbMethod": {"influxdb2": {"influxdb2ClientConfig": client, "influxdb2DataConfig": {"tag": {"a": "b"}}}}}
    return read_push_method(method).targets[0]


async def write(target: Target, *texts: str) -> None:
    async with open_store(target.place, "test") as store:
        await store.write([point(text, target=target) for text in texts])


async def test_forms_are_posted_one_by_one_over_one_connection(collector: Collector) -> None:
    await write(http(collector), "1.5", "2.5")
    first, second = collector.requests("/push")
    assert first["form"] == {
        "temperature": ["1.5"],
        "time": ["2026-11-23T08:47:43.522Z"],
        "device": ["default/room"],
    }
    assert second["form"]["temperature"] == ["2.5"]
    assert first["type"] == "application/x-www-form-urlencoded"


async def test_influx_gets_a_batch_in_one_request_with_the_token(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="401 unauthorized"):
        await write(influx(collector), "1.5")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("INFLUXDB_TOKEN_FILE", str(tmp_path / "token"))
    await write(influx(collector), "1.5", "2.5")
    (request,) = collector.requests()
    assert request["query"] == {"org": ["o"], "bucket": ["b"], "precision": ["ms"]}
    assert [each["value"] for each in request["points"]] == [1.5, 2.5]
    assert request["points"][0] == {
        "measurement": "room",
        "tags": {"a": "b", "device": "default/room"},
        "field": "temperature",
        "value": 1.5,
        "time": AT_MS,
    }


async def test_a_collector_of_opentelemetry_gets_metrics(collector: Collector) -> None:
    await write(read_push_method({"otel": {"endpointURL": collector.url}}).targets[0], "1.5", "2.5")
    (request,) = collector.requests("/v1/metrics")
    assert request["type"] == "application/json"
    (metric,) = request["metrics"][0]["scopeMetrics"][0]["metrics"]
    assert [each["asDouble"] for each in metric["gauge"]["dataPoints"]] == [1.5, 2.5]


async def test_what_a_server_will_never_take_is_told_from_what_it_may_take_later(collector: Collector) -> None:
    with pytest.raises(PointsRefused, match="HTTP 422 unprocessable"):
        await write(http(collector, "refuse"), "1")
    with pytest.raises(OSError, match="HTTP 307"):
        await write(http(collector, "moved"), "1")
    assert collector.requests("/elsewhere") == []
    collector.kill()
    with pytest.raises(OSError, match="refused"):
        await write(http(collector), "1")


async def test_a_connection_that_the_server_closed_meanwhile_is_no_outage(collector: Collector) -> None:
    target = http(collector)
    async with open_store(target.place, "test") as store:
        await store.write([point("1", target=target)])
        collector.kill()
        collector.start()
        await store.write([point("2", target=target)])
    assert [each["form"]["temperature"] for each in collector.requests()] == [["1"], ["2"]]


async def test_a_server_that_does_not_answer_is_given_up_and_delays_nothing(collector: Collector) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        target = read_push_method(
            {"http": {"hostName": "127.0.0.1", "port": mute.getsockname()[1], "timeout": 300}}
        ).targets[0]
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        async with asyncio.TaskGroup() as tasks:
            ticking = tasks.create_task(tick(), name="tick")
            with pytest.raises(OSError, match="timed out"):
                await write(target, "1")
            ticking.cancel()
        assert ticks > 1  # none, where the loop waits as well; a busy machine makes them few
        assert not [each for each in threading.enumerate() if each.name.startswith("push[") and not each.daemon]


async def next_from(connection: Connection) -> tuple[str, bytes, bool]:
    async with asyncio.timeout(10):
        return await connection.receive()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_broker_gets_a_message_for_each_sample(qos: int) -> None:
    with Mosquitto() as broker:
        place = MqttPlace(f"mqtt://127.0.0.1:{broker.port}")
        target = Target(place, topic="data/room", qos=qos, retained=True)
        await write(target, "1.5", "2.5")
        async with connect(here(broker.port), "watcher", None) as watcher:
            watcher.subscribe(["data/#"])
            topic, payload, retained = await next_from(watcher)
        assert (topic, retained) == ("data/room", True)
        assert payload == b'{"device":"default/room","property":"temperature","value":2.5,"timestamp":1795423663522}'


async def test_a_broker_that_is_away_is_an_outage(free_port: int) -> None:
    with pytest.raises(OSError, match="refused"):
        await write(Target(MqttPlace(f"mqtt://127.0.0.1:{free_port}"), topic="t"), "1")
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        await write(Target(MqttPlace("mqtt://h:x"), topic="t"), "1")


def test_credentials_come_from_the_environment_the_stores_own_first(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the file\nand a comment\n")
    assert credential("MYSQL", "PASSWORD", {}) is None
    assert credential("MYSQL", "PASSWORD", {"PASSWORD": "kubeedge's"}) == "kubeedge's"
    assert credential("MYSQL", "PASSWORD", {"PASSWORD": "a", "MYSQL_PASSWORD": "b"}) == "b"
    assert credential("MYSQL", "PASSWORD", {"PASSWORD_FILE": str(tmp_path / "secret")}) == "of the file"
    with pytest.raises(OSError, match="none"):
        credential("MYSQL", "PASSWORD", {"MYSQL_PASSWORD_FILE": str(tmp_path / "none")})
