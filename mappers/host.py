"""
The driver `host`: real readings of the machine the mapper runs on, through psutil.

    load1               FLOAT  read-only    processes that want the processor, averaged over a minute
    cpuPercent          FLOAT  read-only    of all cores, since the sample before
    memoryUsedPercent   FLOAT  read-only
    diskUsedPercent     FLOAT  read-only    of the file system at `path`
    temperature         FLOAT  read-only    the hottest sensor, in °C; no value where the machine has none
    uptime              INT    read-only    seconds since the machine started
    samplingInterval    FLOAT  read/write   seconds between two samples

Samples are taken every samplingInterval seconds, whatever the collectCycle; reads in between give the last
sample, with its time. So a desired samplingInterval takes effect at once, and collectCycle is its lower bound.

Settings (`protocol.configData`, both optional): samplingInterval, path. psutil's home.
"""

import time
from collections.abc import Callable, Collection, Mapping

import psutil

from mappers.driver import BadConfig, Device, Reading, Value, WriteRefused

MIN_INTERVAL_S = 0.05
MAX_INTERVAL_S = 86_400.0


class Host:
    """This machine."""

    def __init__(self, device: Device, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interval_s = device.number("samplingInterval", 5.0, minimum=MIN_INTERVAL_S, maximum=MAX_INTERVAL_S)
        path = device.settings.get("path", "/")
        if not isinstance(path, str) or not path:
            raise BadConfig("protocol.configData.path must be the path of a directory")
        self._path = path
        self._sample: dict[str, Reading] = {}
        self._sampled_at: float | None = None

    async def connect(self) -> None:
        """Open psutil's interval: cpu_percent answers with the load since it was last asked."""
        psutil.cpu_percent(interval=None)
        self._sampled_at = None

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        """The last sample, or a new one when it is time. Each takes about a millisecond, so no thread is worth it."""
        now = self._clock()
        if self._sampled_at is None or now - self._sampled_at >= self._interval_s:
            self._sample = self._measure(round(time.time() * 1000))
            self._sampled_at = now
        readings = {**self._sample, "samplingInterval": Reading(self._interval_s)}
        return {name: reading for name, reading in readings.items() if name in names}

    async def write(self, name: str, value: Value) -> None:
        """Set the sampling interval."""
        if name != "samplingInterval":
            raise WriteRefused(f"{name} is what the machine is like; it cannot be set")
        if not isinstance(value, int | float) or not MIN_INTERVAL_S <= value <= MAX_INTERVAL_S:
            raise WriteRefused(f"samplingInterval must be from {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g} seconds")
        self._interval_s = float(value)

    async def close(self) -> None:
        """Nothing is held open."""

    def _measure(self, at_ms: int) -> dict[str, Reading]:
        try:
            disk_percent = psutil.disk_usage(self._path).percent
        except OSError as exc:
            raise BadConfig(f"protocol.configData.path: {self._path}: {exc.strerror}") from exc
        values: dict[str, Value] = {
            "load1": round(psutil.getloadavg()[0], 2),
            "cpuPercent": psutil.cpu_percent(interval=None),
            "memoryUsedPercent": psutil.virtual_memory().percent,
            "diskUsedPercent": disk_percent,
            "uptime": round(time.time() - psutil.boot_time()),
        }
        hottest = max((sensor.current for chip in _sensors().values() for sensor in chip), default=None)
        if hottest is not None:
            values["temperature"] = hottest
        return {name: Reading(value, at_ms) for name, value in values.items()}


def _sensors() -> Mapping[str, list["psutil._ntuples.shwtemp"]]:
    # psutil leaves the function out on systems where it has none, such as macOS.
    read = getattr(psutil, "sensors_temperatures", None)
    return read() if read is not None else {}
