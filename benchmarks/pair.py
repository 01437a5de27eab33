"""
A hub and a swarm, each in its process and on its core, driven from here.

    with Pair(nodes=1000, pki=directory, everywhere=100) as pair:
        pair.hub.ask("fanout 20")

Both end with their standard input: whatever becomes of this process, they do not outlive it.
"""

import contextlib
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks import certificates
from tests.harness.commanded import WITHIN_S as WITHIN_S
from tests.harness.commanded import Commanded as Commanded

ROOT = Path(__file__).resolve().parent.parent
CONNECTING_PER_S = 20.0  # on a machine that is busy with much else
HUB_CORE, SWARM_CORE = 0, 1


class Ground:
    """A block that begin() sets up. With its end, or where begin() fails, what it left in `stack` is undone."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()

    def begin(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.begin()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()


class Pair(Ground):
    """A hub that holds something, and the nodes that connect to it; in sync when the block begins."""

    def __init__(self, nodes: int, *, pki: Path | None = None, everywhere: int = 0, pods: int = 0) -> None:
        """pki: where certificates are made and kept; None for no TLS. everywhere, pods: objects; pods in all."""
        super().__init__()
        self.nodes = nodes
        self._pki = pki
        self._held = [f"everywhere {everywhere}"] if everywhere else []
        self._held += [f"pods {pods} {nodes}"] if pods else []
        self.hub: Commanded
        self.swarm: Commanded
        self.port = 0
        self.empty_mb = self.alone_mb = 0.0
        """Memory of a hub that holds nothing, and of one that holds everything and has no node."""

    def begin(self) -> None:
        if self._pki is not None:
            certificates.make(self._pki, self.nodes)
        self._tls = [] if self._pki is None else ["--pki", str(self._pki)]
        self.start_hub()
        self.swarm = Commanded(SWARM_CORE, "benchmarks.swarmprocess", str(self.port), str(self.nodes), *self._tls)
        self.stack.callback(self.swarm.kill)
        self.hub.ask(f"wait {self.nodes}", WITHIN_S + self.nodes / CONNECTING_PER_S)

    def start_hub(self) -> None:
        """Start it, or start it again on the port that it had; it serves when this returns."""
        self.hub = Commanded(HUB_CORE, "benchmarks.hubprocess", *self._tls)
        self.stack.callback(self.hub.kill)
        self.empty_mb = self.hub.ask("memory")["resident"]
        for command in self._held:
            self.hub.ask(command)
        self.alone_mb = self.hub.ask("memory")["resident"]
        self.port = self.hub.ask(f"listen {self.port}")["port"]


def end_on_sigterm() -> None:
    """SIGTERM ends a benchmark as ctrl-c does: its processes first."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
