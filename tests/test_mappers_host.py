"""The host driver, on this host."""

import time

import pytest

from mappers.driver import BadConfig, Device, WriteRefused
from mappers.host import Host

ALL = (
    "load1",
    "cpuPercent",
    "memoryUsedPercent",
    "diskUsedPercent",
    "temperature",
    "uptime",
    "samplingInterval",
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def host(clock: Clock | None = None, **settings: object) -> Host:
    return Host(Device("default/host", settings, {}), clock or Clock())


async def test_it_reads_this_machine() -> None:
    one = host()
    await one.connect()
    readings = await one.read(ALL)
    # A machine without sensors has no temperature: then it is left out, not zero.
    assert set(ALL) - set(readings) <= {"temperature"}
    for name in ("cpuPercent", "memoryUsedPercent", "diskUsedPercent"):
        value = readings[name].value
        assert isinstance(value, float)
        assert 0 <= value <= 100
    uptime = readings["uptime"].value
    assert isinstance(uptime, int)
    assert uptime >= 0
    at_ms = readings["load1"].at_ms
    assert at_ms is not None
    assert abs(at_ms / 1000 - time.time()) < 60
    await one.close()


async def test_it_samples_once_per_interval_however_often_it_is_read() -> None:
    clock = Clock()
    one = host(clock, samplingInterval=5)
    first = await one.read(["uptime"])
    clock.now += 4.9
    assert await one.read(["uptime"]) == first
    clock.now += 0.2
    assert (await one.read(["uptime"]))["uptime"] is not first["uptime"]


async def test_a_shorter_interval_counts_at_once() -> None:
    clock = Clock()
    one = host(clock, samplingInterval=3600)
    first = await one.read(["uptime"])
    await one.write("samplingInterval", 1.0)
    assert (await one.read(["samplingInterval"]))["samplingInterval"].value == 1.0
    clock.now += 1
    assert (await one.read(["uptime"]))["uptime"] is not first["uptime"]


async def test_a_reconnect_takes_a_new_sample() -> None:
    one = host(samplingInterval=3600)
    first = await one.read(["uptime"])
    await one.connect()
    assert (await one.read(["uptime"]))["uptime"] is not first["uptime"]


@pytest.mark.parametrize(
    ("name", "value"), [("load1", 0.0), ("samplingInterval", 0.0), ("samplingInterval", "1"), ("samplingInterval", 1e9)]
)
async def test_what_cannot_be_set_is_refused(name: str, value: float | str) -> None:
    with pytest.raises(WriteRefused):
        await host().write(name, value)


@pytest.mark.parametrize("settings", [{"path": 3}, {"path": ""}, {"samplingInterval": 0}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(BadConfig):
        Host(Device("default/host", settings, {}))


async def test_a_path_that_is_not_there_is_a_matter_of_configuration() -> None:
    with pytest.raises(BadConfig, match="/no/such/path: No such file"):
        await host(path="/no/such/path").read(ALL)
