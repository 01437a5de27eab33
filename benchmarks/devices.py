"""
A desired edit of each of 1,000 devices of one node: when has the last device heard of it, when do all statuses say so.

An apiserver takes edits one by one, and the embedded one no faster than a few hundred a second, which would hide the
line behind it. So cloudcore is held (SIGSTOP) while the edits are made and let go when the last is in: what is measured
then is everything behind the apiserver, with a thousand edits at once. A thousand edits as they come are measured too.
"""

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from benchmarks import procfs
from benchmarks.figures import Figure
from benchmarks.line import Line, Sightings, delta_in, desired_in, name_of

DEVICES = 1000
QUICK_DEVICES = 100
STATUS_WITHIN_S = 300.0  # a minute and a half, on a machine with nothing else to do


def measure(runs: int, quick: bool) -> Iterator[list[Figure]]:
    """The figures of all runs; one line serves them all."""
    count = QUICK_DEVICES if quick else DEVICES
    at_once: list[float] = []
    spent: list[float] = []
    told: list[float] = []
    as_they_come: list[float] = []
    edits: list[float] = []
    with Line("embedded") as line:
        line.add_devices(range(1, count))
        _settle(line, count, 0)
        for run in range(runs):
            for seconds, all_runs in zip(_held(line, count, 1000 + run), (at_once, spent, told), strict=True):
                all_runs.append(seconds)
            for seconds, all_runs in zip(_flowing(line, count, 2000 + run), (as_they_come, edits), strict=True):
                all_runs.append(seconds)
            _settle(line, count, 2000 + run)
    yield [
        Figure(
            f"{count:,} edits let go at once -> the last device's MQTT message",
            "s",
            at_once,
            1.0,
            note="statuses are being written meanwhile",
        ),
        Figure(f"processor time of cloudcore and edgecore until then, {count:,} edits", "s", spent),
        Figure(f"{count:,} edits let go at once -> all Devices' statuses say what became of it", "s", told),
        Figure(
            f"{count:,} edits one after another: the last one seen by a watch -> all MQTT messages are there",
            "s",
            as_they_come,
            1.0,
        ),
        Figure(f"{count:,} edits one after another: first to last", "s", edits, note="the embedded apiserver's share"),
    ]


def _held(line: Line, count: int, value: int) -> tuple[float, float, float]:
    """Seconds from letting cloudcore go until the last delta, processor seconds, and seconds until the last status."""
    cloud = line.site.processes["cloud"].pid
    edge = line.edge.pid if line.edge else cloud
    with line.client(told=delta_in) as (_, heard), line.watch("devices", _observed_in) as seen, line.patcher() as patch:
        _hold(cloud, held=True)
        try:
            for device in range(count):
                patch(device, value)
        finally:
            used = procfs.cpu_s(cloud) + procfs.cpu_s(edge)
            began = time.perf_counter()
            _hold(cloud, held=False)
        deltas = _last(heard, count, value) - began
        used = procfs.cpu_s(cloud) + procfs.cpu_s(edge) - used
        return deltas, used, _last(seen, count, value) - began


def _flowing(line: Line, count: int, value: int) -> tuple[float, float]:
    """Seconds from the last edit, as a watch sees it, until the last delta; and what the edits took."""
    with line.client(told=delta_in) as (_, heard), line.watch("devices", desired_in) as seen, line.patcher() as patch:
        began = time.perf_counter()
        for device in range(count):
            patch(device, value)
        last = _last(heard, count, value)
        committed = _last(seen, count, value)
        return max(0.0, last - committed), committed - began


def _hold(pid: int, *, held: bool) -> None:
    os.kill(pid, signal.SIGSTOP if held else signal.SIGCONT)


def _last(sightings: Sightings, count: int, value: int, within_s: float = STATUS_WITHIN_S) -> float:
    """When the last of the devices had the value."""
    return max(sightings.wait(name_of(device), str(value), within_s) for device in range(count))


def _observed_in(device: dict[str, Any]) -> tuple[str, str] | None:
    """The desired value that a Device's status says the node knows."""
    for each in device.get("status", {}).get("twins", ()):
        if each["propertyName"] == "setpoint" and "observedDesired" in each:
            return device["metadata"]["name"], each["observedDesired"]["value"]
    return None


def _settle(line: Line, count: int, value: int) -> None:
    """Wait until all statuses speak of this value: what was done before is no load any more."""
    connection = line.connect()
    try:
        by = time.monotonic() + STATUS_WITHIN_S
        while True:
            items = line.list(connection, "devices")
            if sum(_observed_in(item) == (item["metadata"]["name"], str(value)) for item in items) == count:
                return
            assert time.monotonic() < by, "the statuses do not come to rest"
            time.sleep(1.0)
    finally:
        connection.close()
