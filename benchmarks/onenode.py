"""
One real edgecore on a hub that is fed with a replayed watch: what hub, link and the edge's commit add to a change.

From the watch event, as its line is taken in, to the acknowledgement in the hub: the edge acknowledges what its
transaction has committed, so the way back is in the figure, too, and both ends are on one clock. No apiserver is, for
its answers are its own. Mutual TLS, as always between these two.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import certificates, procfs
from benchmarks.figures import Curve, Figure, Measured, Times, growth, percentile
from benchmarks.pair import HUB_CORE, ROOT, SWARM_CORE, WITHIN_S, Commanded, Ground
from componentbase import config
from componentbase.endpoints import Endpoint
from edgecore.settings import CloudConfig, EdgeConfig
from edgehub.join import CA_FILE, CERTIFICATE_FILE, CONFIGURATION, KEY_FILE, PKI
from tests.harness.mosquitto import free_port

RATE, CHANGES = 100, 500
HELD = 100
OBJECTS = (10, 100, 1000, 10_000)
GROWING_CHANGES = 200
BULK = 10_000
P50_MS, P99_MS = 2.0, 10.0
LOG = "edge.log"


class OneNode(Ground):
    """The hub and the edge, in sync when the block begins."""

    def __init__(self, pki: Path, edgecore: Path | None, everywhere: int = 0) -> None:
        super().__init__()
        self._certificates = pki
        self._program = [sys.executable, "-m", "edgecore"] if edgecore is None else [str(edgecore)]
        self._everywhere = everywhere
        self.hub: Commanded
        self.edge_pid = 0

    def begin(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="bench-"))
        self.stack.callback(shutil.rmtree, home, ignore_errors=True)
        certificates.make(self._certificates, 1)
        self.hub = Commanded(HUB_CORE, "benchmarks.hubprocess", "--pki", str(self._certificates))
        self.stack.callback(self.hub.kill)
        if self._everywhere:
            self.hub.ask(f"everywhere {self._everywhere}")
        self._join(home, self.hub.ask("listen 0")["port"])
        self._start(home)
        try:
            self.hub.ask("wait 1")
        except AssertionError as exc:
            raise AssertionError(f"{exc}; edgecore says:\n{(home / LOG).read_text()[-2000:]}") from exc

    def _join(self, home: Path, port: int) -> None:
        """What `edgecore join` leaves behind."""
        name = certificates.name_of(0)
        (home / PKI).mkdir()
        for file, made in ((CA_FILE, "ca.crt"), (CERTIFICATE_FILE, f"{name}.crt"), (KEY_FILE, f"{name}.key")):
            shutil.copy(self._certificates / made, home / PKI / file)
        settings = EdgeConfig(node=name, cloud=CloudConfig(link=Endpoint("127.0.0.1", port)))
        (home / CONFIGURATION).write_text(config.dump(settings))

    def _start(self, home: Path) -> None:
        arguments = ["run", "--data-dir", str(home), "--api", f"127.0.0.1:{free_port()}"]
        arguments += ["--mqtt", "embedded", "--mqtt-listen", f"127.0.0.1:{free_port()}"]
        with (home / LOG).open("ab") as log:
            edge = subprocess.Popen([*self._program, *arguments], stdout=log, stderr=log, cwd=ROOT)
        self.stack.callback(edge.wait)
        self.stack.callback(edge.kill)
        self.edge_pid = edge.pid
        if SWARM_CORE in os.sched_getaffinity(0):
            os.sched_setaffinity(edge.pid, {SWARM_CORE})


def added_latency(runs: int, quick: bool, edgecore: Path | None, pki: Path) -> Iterator[list[Measured]]:
    """At the rate of the target, and over objects held."""
    times = Times(f"watch event -> committed at the edge and acknowledged, {RATE} changes/s")
    with OneNode(pki, edgecore, HELD) as node:
        for _ in range(runs):
            times.begin_run()
            for milliseconds in node.hub.ask(f"shared {RATE} {20 if quick else CHANGES}")["milliseconds"]:
                times.add(milliseconds)
    middle, tail = times.figures()
    middle.target, tail.target = P50_MS, P99_MS
    middle.is_promise = tail.is_promise = True
    yield [middle, tail, times.distribution("latency", f"hub, link and edge commit, {RATE}/s")]
    waits: list[tuple[float, float]] = []
    costs: list[tuple[float, float]] = []
    with OneNode(pki, edgecore, 1) as node:
        held = 1
        for objects in OBJECTS[:2] if quick else OBJECTS:
            node.hub.ask(f"everywhere {objects - held}")
            held = objects
            used, changes = procfs.cpu_s(node.edge_pid), 10 if quick else GROWING_CHANGES
            answer = node.hub.ask(f"shared {RATE} {changes}")
            costs.append((objects, (procfs.cpu_s(node.edge_pid) - used) / changes * 1e6))
            waits.append((objects, percentile(sorted(answer["milliseconds"]), 50)))
    yield [
        Curve("objects", "edgecore: processor per change, us", costs),
        Curve("objects", "until committed at a real edge, p50, us", [(x, y * 1000) for x, y in waits]),
        growth("edgecore's processor time of a change, over objects held", costs),
        growth("until it is committed at the edge, p50, over objects held", waits),
    ]


def first_sync(runs: int, quick: bool, edgecore: Path | None, pki: Path) -> list[Measured]:
    """How fast a real edge takes what it does not hold, the link being up."""
    count, rates, costs = 100 if quick else BULK, [], []
    for _ in range(runs):
        with OneNode(pki, edgecore) as node:
            used, began = procfs.cpu_s(node.edge_pid), time.perf_counter()
            node.hub.ask(f"everywhere {count}", WITHIN_S)
            rates.append(count / (time.perf_counter() - began))
            costs.append((procfs.cpu_s(node.edge_pid) - used) / count * 1e6)
    about = f"{count:,} objects of 600 B pushed to a real edgecore, mutual TLS"
    return [
        Figure(f"{about}: committed per second", "1/s", rates, note="hub and edge have a core each"),
        Figure(f"{about}: edgecore's processor for each", "us", costs),
    ]
