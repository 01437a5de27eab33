"""Samples from the driver to a store: nothing waits, an outage loses the oldest only, idle places are let go."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from apimachinery.devices import PropertyModel, PropertyType
from mappers import telemetry
from mappers.pushmethod import read_push_method
from mappers.telemetry import Telemetry
from mappers.words import Device, Property, Reading
from tests.harness.collector import Collector
from tests.harness.mapper import MapperProcess
from tests.harness.mosquitto import Mosquitto
from tests.harness.mqtt_edge import MqttEdge
from tests.test_mappers_runtime import THERMOSTAT, thermostat


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with Collector(tmp_path) as one:
        yield one


def push_to(collector: Collector, path: str = "v1/metrics") -> dict[str, Any]:
    if path == "v1/metrics":
        return {"otel": {"endpointURL": collector.url}}
    return {"http": {"hostName": "127.0.0.1", "port": collector.port, "requestPath": path}}


def device(*names: str, **methods: dict[str, Any]) -> Device:
    def a_property(name: str) -> Property:
        model = PropertyModel(name=name, type=PropertyType.INT, writable=False, minimum="", maximum="", unit="")
        return Property(model, {}, 1.0, 1.0, True, 0.0, read_push_method(methods.get(name, {})).targets)

    return Device("default/meter", {}, {name: a_property(name) for name in names})


def values(collector: Collector, name: str = "count") -> list[int]:
    found = []
    for request in collector.requests("/v1/metrics"):
        for metric in request["metrics"][0]["scopeMetrics"][0]["metrics"]:
            if metric["name"] == name:
                found += [int(each["asInt"]) for each in metric["gauge"]["dataPoints"]]
    return found


async def until(condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    by = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < by, f"waited in vain for {what}"
        await asyncio.sleep(0.02)


async def ended(group: asyncio.TaskGroup) -> None:
    for task in list(group._tasks):
        task.cancel()


async def test_samples_go_in_batches_to_where_their_property_says(collector: Collector) -> None:
    meter = device("count", "silent", count=push_to(collector))
    async with asyncio.TaskGroup() as group:
        pushing = Telemetry(group, "test")
        for number in range(1200):
            pushing.push(meter, {"count": Reading(number), "silent": Reading(1), "unknown": Reading(1)})
        pushing.push(meter, {"count": Reading("no number")})
        await until(lambda: len(values(collector)) == 1200, "the samples")
        assert values(collector) == list(range(1200))
        assert values(collector, "silent") == []
        assert len(collector.requests()) == 3  # of 500 at most
        await ended(group)


async def test_the_devices_own_time_is_kept_unless_it_is_nonsense(collector: Collector) -> None:
    meter = device("count", count=push_to(collector))
    async with asyncio.TaskGroup() as group:
        pushing = Telemetry(group, "test")
        for at_ms in (1_700_000_000_000, -5, 10**18):
            pushing.push(meter, {"count": Reading(1, at_ms)})
        (request,) = await asyncio.to_thread(collector.until, 1)
        points = request["metrics"][0]["scopeMetrics"][0]["metrics"][0]["gauge"]["dataPoints"]
        first, *others = [int(each["timeUnixNano"]) // 10**9 for each in points]
        assert first == 1_700_000_000
        assert all(abs(each - time.time()) < 60 for each in others)
        await ended(group)


async def test_an_outage_loses_the_oldest_only_and_is_told_once(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mappers.telemetry")
    monkeypatch.setattr(telemetry, "QUEUE_LIMIT", 100)
    meter = device("count", count=push_to(collector))
    collector.kill()
    async with asyncio.TaskGroup() as group:
        pushing = Telemetry(group, "test")
        began = time.monotonic()
        for number in range(350):
            pushing.push(meter, {"count": Reading(number)})
        assert time.monotonic() - began < 1, "nobody waited"
        await until(lambda: "samples cannot be pushed, trying again" in caplog.messages, "the warning")
        collector.start()
        await until(lambda: 349 in values(collector), "the samples")
        assert values(collector) == list(range(250, 350))
        await until(lambda: "samples are pushed again" in caplog.messages, "the end of it")
        await ended(group)
    assert caplog.messages.count("samples cannot be pushed, trying again") == 1
    drops = [each.__dict__["dropped"] for each in caplog.records if each.message.startswith("samples dropped")]
    assert drops == [1, 2, 4, 8, 16, 32, 64, 128]


async def test_what_is_refused_is_dropped_and_other_places_do_not_mind(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    meter = device("bad", "count", bad=push_to(collector, "refuse"), count=push_to(collector))
    async with asyncio.TaskGroup() as group:
        pushing = Telemetry(group, "test")
        pushing.push(meter, {"bad": Reading(1), "count": Reading(1)})
        await until(lambda: "samples refused by their store, dropped" in caplog.messages, "the refusal")
        await until(lambda: values(collector) == [1], "the other place's sample")
        pushing.push(meter, {"count": Reading(2)})
        await until(lambda: values(collector) == [1, 2], "another")
        await ended(group)


async def test_a_place_that_nobody_writes_to_is_let_go_and_comes_back(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "IDLE_S", 0.05)
    meter = device("count", count=push_to(collector))
    async with asyncio.TaskGroup() as group:
        pushing = Telemetry(group, "test")
        for number in range(3):
            pushing.push(meter, {"count": Reading(number)})
            await until(lambda: not pushing._pushers and not group._tasks, "the place is let go")
        assert values(collector) == [0, 1, 2]


async def test_places_are_bounded(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MAX_PLACES", 2)
    names = ["a", "b", "c"]
    meter = device(*names, **{name: push_to(collector, name) for name in names})
    async with asyncio.TaskGroup() as group:
        pushing = Telemetry(group, "test")
        pushing.push(meter, {name: Reading(1) for name in names})
        await asyncio.to_thread(collector.until, 2)
        assert len(pushing._pushers) == 2
        await ended(group)
    assert {each["path"] for each in collector.requests()} == {"/a", "/b"}


@pytest.mark.timeout(90)
async def test_a_mapper_pushes_each_sample_while_its_store_dies_and_its_twin_goes_on(
    collector: Collector, tmp_path: Path
) -> None:
    with Mosquitto() as broker, MqttEdge(broker.port) as edge:
        setpoint, temperature, heater = thermostat().properties
        method = {**push_to(collector, "push"), "mqtt": {"address": f"127.0.0.1:{broker.port}", "topic": "data/room"}}
        pushed = temperature._replace(push_method=method, report_to_cloud=False)
        edge.configure(thermostat()._replace(properties=(setpoint, pushed, heater)))
        mapper = MapperProcess("run", "simulated", "--mqtt", f"mqtt://127.0.0.1:{broker.port}", directory=tmp_path)
        try:
            first = await asyncio.to_thread(collector.until, 20, "/push")
            assert {each["form"]["device"][0] for each in first} == {str(THERMOSTAT)}
            assert "temperature" not in edge.reported(THERMOSTAT), "not by the twin"
            collector.kill()
            killed_at = time.time()
            await edge.until(lambda: mapper.said("samples cannot be pushed, trying again"), "the outage")
            edge.desire(THERMOSTAT, 1, setpoint="24")
            await edge.until(lambda: edge.answered(THERMOSTAT, "setpoint") == 1, "the twin goes on")
            started_at = time.time()
            before = len(collector.requests())
            collector.start()
            await asyncio.to_thread(collector.until, before + 20, "/push")
            times = [_seconds(each["form"]["time"][0]) for each in collector.requests("/push")]
            assert times == sorted(times)
            assert any(killed_at < each < started_at for each in times), "what was sampled meanwhile is there"
        finally:
            assert mapper.stop() == 0


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
