"""
One transport against the other over bad lines: a real cloudcore and a real edgecore in two network namespaces.

Between the two is tests/harness/badline.py, packet by packet, so that loss, delay and rate are felt by the kernel's
TCP and by QUIC's own. Root only; elsewhere the family says why and has no figures.

For each line: an edgecore that holds nothing starts and takes in OBJECTS pods; from when it begins to dial until all
are committed is the time to sync. Then pods are changed, PER_S a second, each another one, and each is timed from its
PATCH to its event on a watch of the node's own API. Bytes are those of IP packets, retransmissions and
acknowledgements included, both headers too; processor time is that of all threads of each process during the sync.

A blackhole comes over a link that is up, and a change is made in it: what is timed is from its end until the change
is on the node. Whether the link survived it is told by the number of sessions.
"""

import contextlib
import http.client
import json
import random
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks import procfs
from benchmarks.figures import Figure, Measured, percentile
from tests.harness.badline import BadLine, tcp_ways, why_not
from tests.harness.mosquitto import free_port
from tests.harness.site import Site
from tests.harness.watchreader import following

NODE = "edge-1"
TRANSPORTS = ("websocket", "quic")
BBR = "bbr"  # the other way of TCP that kernels have and operators choose; shown where it makes a difference
OBJECTS, CHANGES, PER_S = 1000, 100, 10
WITHIN_S = 300.0
BLACKHOLE_S = 60.0
LOOK_S = 0.05  # between two looks at whether it is in sync; each costs the edge 1 ms
NEAR_S = 0.02  # one way, where something else than the delay is looked at
LINES: Mapping[str, Mapping[str, float | int]] = {
    "a good line, RTT 40 ms": {"delay_s": NEAR_S},
    "1 % lost": {"delay_s": NEAR_S, "loss": 0.01},
    "5 % lost": {"delay_s": NEAR_S, "loss": 0.05},
    "20 % lost": {"delay_s": NEAR_S, "loss": 0.2},
    "RTT 100 ms": {"delay_s": 0.05},
    "RTT 400 ms": {"delay_s": 0.2},
    "RTT 1,200 ms": {"delay_s": 0.6},
    "64 kbit/s": {"delay_s": NEAR_S, "rate": 64_000, "queue_bytes": 16 << 10},
    "10 % doubled": {"delay_s": NEAR_S, "duplicate": 0.1},
    "25 % out of order": {"delay_s": NEAR_S, "reorder": 0.25},
}
QUICK = ("a good line, RTT 40 ms", "5 % lost")
CONFIG = "join: {advertise: [ADDRESS]}\n"


class Taken(NamedTuple):
    """What a line did to one transport."""

    sync_s: float
    up: int
    down: int
    hub_s: float
    edge_s: float
    changes_ms: list[float]
    change_bytes: float


class Distant(Site):
    """Apiserver and hub in one namespace, an edge in the other; the calling thread is in the cloud's throughout."""

    def __init__(self, directory: Path, line: BadLine) -> None:
        super().__init__(directory)
        self.line = line
        self.ports |= {"quic": free_port(), f"{NODE}-api": free_port(), f"{NODE}-mqtt": free_port()}

    def __enter__(self) -> Self:
        super().__enter__()
        config = self.directory / "cloudcore.yaml"
        config.write_text(CONFIG.replace("ADDRESS", self.line.cloud.address))
        flags = ["--config", str(config), "--listen", f"{self.line.cloud.address}:{self.ports['link']}"]
        flags += ["--quic-listen", f"{self.line.cloud.address}:{self.ports['quic']}"]
        self.start_cloud(flags=flags)
        self.join(NODE)
        path = self.directory / NODE / "edgecore.yaml"
        link = f'\\1 "{self.line.cloud.address}:{self.ports["link"]}"'
        path.write_text(re.sub(r"(?m)^(  link:) .*$", link, path.read_text(), count=1))
        self._api = self._connection()
        for number in range(OBJECTS):
            self._ask("POST", "/api/v1/namespaces/default/pods", _pod(number))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._api.close()

    def _connection(self) -> http.client.HTTPSConnection:
        import base64
        import ssl

        self._config = json.loads(self.kubeconfig.read_text())
        authority = base64.b64decode(self._config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        return http.client.HTTPSConnection("127.0.0.1", self.ports["api"], context=context, timeout=60)

    def _ask(self, method: str, path: str, body: object) -> None:
        token = self._config["users"][0]["user"]["token"]
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        self._api.request(method, path, json.dumps(body), {"Authorization": f"Bearer {token}", "Content-Type": kind})
        answer = self._api.getresponse()
        told = answer.read()
        assert answer.status in (200, 201), told[:300]

    # The edge

    def start_anew(self, transport: str) -> None:
        """An edge that holds nothing; returns when it begins to dial."""
        self.stop_edge()
        for path in (self.directory / NODE).glob("edge.db*"):
            path.unlink()
        flags = ["--transport", transport, "--quic-port", str(self.ports["quic"])]
        with self.line.edge:
            self.start_edge(NODE, wait=False, flags=flags)
        self.until(lambda: self.ask("edgecore", NODE), "edgecore runs", self.processes[NODE])

    def stop_edge(self) -> None:
        if NODE in self.processes:
            self.processes.pop(NODE).stop()

    def synced(self) -> float:
        """Seconds until the edge has everything, from now."""
        began = time.perf_counter()
        while True:
            facts = self.ask("edgecore", NODE)
            if facts.get("inSync") and facts.get("objects", 0) >= OBJECTS:
                return time.perf_counter() - began
            assert time.perf_counter() < began + WITHIN_S, f"not in sync after {WITHIN_S:g} s: {facts}"
            time.sleep(LOOK_S)

    @contextlib.contextmanager
    def watching(self) -> Iterator[dict[str, float]]:
        """When which mark was seen on the node."""
        seen: dict[str, float] = {}
        with self.line.edge:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[f"{NODE}-api"], timeout=600)
            connection.connect()

        def told(at: float, line: bytes) -> None:
            if (found := re.search(rb'"mark":"(m[0-9]+)"', line)) is not None:
                seen.setdefault(found[1].decode(), at)

        with following(connection, "/api/v1/pods?watch=true&resourceVersion=" + self._local_version(), told):
            yield seen

    def _local_version(self) -> str:
        with self.line.edge:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports[f"{NODE}-api"], timeout=60)
            connection.request("GET", "/api/v1/pods?limit=1")
            version: str = json.loads(connection.getresponse().read())["metadata"]["resourceVersion"]
            connection.close()
        return version

    def change(self, number: int) -> str:
        """Change one pod; its mark."""
        mark = f"m{self._next()}"
        body = {"metadata": {"annotations": {"mark": mark}}}
        self._ask("PATCH", f"/api/v1/namespaces/default/pods/pod-{number % OBJECTS}", body)
        return mark

    _marks = 0

    def _next(self) -> int:
        self._marks += 1
        return self._marks

    @property
    def sessions(self) -> float:
        return self.metrics("cloudcore", "cloud")["hub_sessions_total"]


def measure(runs: int, quick: bool) -> Iterator[list[Measured]]:
    """Line by line, with each transport that there is; runs: how often each."""
    if why := why_not():
        raise AssertionError(f"no bad line can be made here: {why}")
    directory = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        with BadLine() as line, line.cloud, Distant(directory, line) as site:
            for name in QUICK if quick else LINES:
                for transport in TRANSPORTS:
                    yield _figures(f"{name}, {transport}", [_taken(site, name, transport, quick) for _ in range(runs)])
                if "loss" in LINES[name] and BBR in tcp_ways():
                    line.set_tcp(BBR)
                    yield _figures(
                        f"{name}, websocket with BBR", [_taken(site, name, "websocket", quick) for _ in range(runs)]
                    )
                    line.set_tcp()
            for transport in TRANSPORTS:
                yield _blackhole(site, transport, 5.0 if quick else BLACKHOLE_S)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _taken(site: Distant, name: str, transport: str, quick: bool) -> Taken:
    line = site.line
    line.reset()
    line.set(**LINES[name])  # type: ignore[arg-type]
    hub = site.processes["cloud"].pid
    used = procfs.cpu_s(hub)
    before = line.counts()
    site.start_anew(transport)
    edge = site.processes[NODE].pid
    edge_used = procfs.cpu_s(edge)
    sync_s = site.synced()
    after = line.counts()
    hub_s, edge_s = procfs.cpu_s(hub) - used, procfs.cpu_s(edge) - edge_used
    count = CHANGES // 5 if quick else CHANGES
    with site.watching() as seen:
        sent: dict[str, float] = {}
        began = time.perf_counter()
        for number in range(count):
            time.sleep(max(0.0, began + number / PER_S - time.perf_counter()))
            at = time.perf_counter()
            sent[site.change(number)] = at
        by = time.perf_counter() + WITHIN_S
        while not sent.keys() <= seen.keys():
            assert time.perf_counter() < by, f"{name}, {transport}: {len(sent.keys() - seen.keys())} changes never came"
            time.sleep(0.02)
        milliseconds = sorted((seen[mark] - at) * 1000 for mark, at in sent.items())
    last = line.counts()
    change_bytes = sum(last[way].bytes - after[way].bytes for way in last) / count
    up, down = (after[way].bytes - before[way].bytes for way in ("up", "down"))
    line.reset()
    return Taken(sync_s, up, down, hub_s, edge_s, milliseconds, change_bytes)


def _figures(row: str, runs: list[Taken]) -> list[Measured]:
    pooled = sorted(each for run in runs for each in run.changes_ms)
    return [
        Figure(f"{row} | in sync", "s", [run.sync_s for run in runs]),
        Figure(f"{row} | up", "KB", [run.up / 1000 for run in runs]),
        Figure(f"{row} | down", "KB", [run.down / 1000 for run in runs]),
        Figure(f"{row} | hub's processor", "s", [run.hub_s for run in runs]),
        Figure(f"{row} | edge's processor", "s", [run.edge_s for run in runs]),
        Figure(f"{row} | change, p50", "ms", [percentile(pooled, 50)]),
        Figure(f"{row} | change, p99", "ms", [percentile(pooled, 99)]),
        Figure(f"{row} | a change, both ways", "B", [run.change_bytes for run in runs]),
    ]


def _blackhole(site: Distant, transport: str, seconds: float) -> list[Measured]:
    line = site.line
    line.reset()
    line.set(delay_s=NEAR_S)
    site.start_anew(transport)
    site.synced()
    sessions = site.sessions
    with site.watching() as seen:
        line.set(blackhole=True)
        began = time.perf_counter()
        mark = site.change(random.randrange(OBJECTS))
        time.sleep(seconds)
        assert mark not in seen, "nothing passes a blackhole"
        line.set(blackhole=False)
        over = time.perf_counter()
        while mark not in seen:
            assert time.perf_counter() < over + WITHIN_S, f"{transport}: the change never came"
            time.sleep(0.01)
    row = f"{over - began:.0f} s of blackhole, {transport}"
    return [
        Figure(f"{row} | after it, a change", "s", [seen[mark] - over]),
        Figure(f"{row} | sessions", "", [site.sessions - sessions]),
    ]


def _pod(number: int) -> dict[str, Any]:
    """Small, and half of it such that it does not compress."""
    noise = f"{random.Random(number).getrandbits(800):0200x}"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{number}", "annotations": {"noise": noise}},
        "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": f"registry.example/app:{number}"}]},
    }
