"""
A driver in under forty lines: a device whose properties are files in a directory, as Linux's /sys has them.

    mapper run files --driver filedriver:Files --mqtt mqtt://127.0.0.1:1883
"""

from collections.abc import Collection, Mapping
from pathlib import Path

from mappers.driver import BadConfig, Device, Reading, Value, WriteRefused


class Files:
    def __init__(self, device: Device) -> None:
        directory = device.settings.get("directory")  # protocol.configData of the Device
        if not isinstance(directory, str):
            raise BadConfig("protocol.configData.directory must be a path")
        self._directory = Path(directory)
        self._types = {name: type_of(each.model.type) for name, each in device.properties.items()}

    async def connect(self) -> None:
        self._directory.stat()  # an OSError means: offline, try again later

    async def read(self, names: Collection[str]) -> Mapping[str, Reading]:
        files = {name: self._directory / name for name in names}
        return {name: Reading(self._types[name](file.read_text())) for name, file in files.items() if file.exists()}

    async def write(self, name: str, value: Value) -> None:
        if not (self._directory / name).exists():
            raise WriteRefused(f"there is no file {name}")
        (self._directory / name).write_text(str(value))

    async def close(self) -> None:
        pass


def type_of(kind: str) -> type[int] | type[float] | type[str]:
    return {"INT": int, "FLOAT": float}.get(kind, str)
