"""
What the demo remembers between two starts: the ports it took, and whether it has made its devices yet.

Everything else is in the data directories of the processes themselves.
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Self

from componentbase.files import write_atomic

FILE = "demo.json"
HOST = "127.0.0.1"
TRIES = 100


@dataclass(frozen=True)
class Ports:
    """Where everybody listens, on loopback; the defaults are those of the commands."""

    apiserver: int = 6443
    link: int = 10000
    join: int = 10002
    api: int = 10550
    mqtt: int = 1883


@dataclass
class State:
    """Of one data directory. Change it, then save() it."""

    ports: Ports = field(default_factory=Ports)
    cluster: str = ""
    """Which cluster the rest is about: the uid of its namespace `default`."""
    joined_link: int | None = None
    """The link's port that the edge was told when it joined."""
    has_devices: bool = False

    @classmethod
    def load(cls, folder: Path) -> Self:
        """As it was saved; a new one when there is none, or none that can be read."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            value = json.loads((folder / FILE).read_bytes())
            ports = Ports(**value["ports"])
            if all(type(port) is int and 0 < port < 1 << 16 for port in asdict(ports).values()):
                return cls(ports, str(value["cluster"]), value["joined_link"], bool(value["has_devices"]))
        return cls()

    def meet(self, cluster: str) -> None:
        """Forget what was done in another cluster: somebody has removed the apiserver's directory."""
        if cluster != self.cluster:
            self.cluster, self.joined_link, self.has_devices = cluster, None, False

    def save(self, folder: Path) -> None:
        """Raises componentbase.files.FilesError."""
        write_atomic(folder / FILE, json.dumps(asdict(self), indent=2).encode())


def free_ports(wanted: Ports) -> Ports:
    """
    The wanted ports where nobody listens on them, the next higher free ones where somebody does.

    Not any free port: the kernel gives those out from the range that it also takes for outgoing connections, and
    while a killed process is started again, one of those would take its port.
    Between this and the process that takes the port somebody else may take it; then that process says so and ends.
    """
    with contextlib.ExitStack() as held:  # all bound together, so that no port is given out twice
        return Ports(**dict(_take(wanted, held)))


def _take(wanted: Ports, held: contextlib.ExitStack) -> Iterator[tuple[str, int]]:
    for each in fields(wanted):
        first: int = getattr(wanted, each.name)
        for port in [*range(first, min(first + TRIES, 1 << 16)), 0]:
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what an ended server left is free
            try:
                listener.bind((HOST, port))
                listener.listen()  # with SO_REUSEADDR, only this finds a listener on every address
            except OSError:
                continue
            yield each.name, listener.getsockname()[1]
            break
