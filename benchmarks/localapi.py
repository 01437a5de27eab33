"""
The node's API under its own loads: a long list, many watches, and how soon a watch tells what was committed.

edgecore runs with nothing but `fairlead[edge]` installed and without the cloud, its store filled beforehand: so what is
measured is the node's own part, and a write is a commit of its own, with the disk in it.
"""

import asyncio
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

from apimachinery.events import Change
from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.objects import JSON, canonical, revision_of
from apimachinery.resources import CONFIG_MAPS, PODS
from apiserver.http import serve
from benchmarks import procfs
from benchmarks.figures import Figure, Times
from benchmarks.line import NODE, Line
from link.frames import Batch, Cursor, Delta
from metamanager.api import LinkState, LocalApi
from metamanager.store import Store
from tests.harness.mosquitto import free_port

OBJECTS = 10_000
VALUE = "x" * 850  # makes a body of 1 KB
WATCHERS = 100
EVENTS = 400
SETTLE_S = 1.0
PODS_PATH = "/api/v1/namespaces/default/pods"
WATCH = f"{PODS_PATH}?watch=true&resourceVersion="


def measure(runs: int, quick: bool, edgecore: Path | None) -> Iterator[list[Figure]]:
    """Lists, then watches, each run in a new process."""
    found: dict[str, list[float]] = {}
    sent = Times("Pod status sent -> event at a watcher", "a commit with its fsync is in it")
    commits = Times("committed -> event at a watcher", "in the API's own process, the watcher in another")
    events = EVENTS // (10 if quick else 1)
    with Line("embedded", 1, edgecore=edgecore) as line:
        line.stop_edge()
        line.site.processes["cloud"].stop()
        asyncio.run(_fill(line.site.directory / NODE / "edge.db"))
        for run in range(runs):
            _start(line)
            for name, value in _list(line):
                found.setdefault(name, []).append(value)
            line.stop_edge()
            _start(line)  # a list leaves memory behind that watches would then live on
            found.setdefault("watchers", []).append(_watchers(line))
            sent.begin_run()
            _events(line, events, sent)
            line.stop_edge()
            commits.begin_run()
            directory = line.site.directory / f"commits-{run}"
            directory.mkdir()
            asyncio.run(_commits(directory, events, commits))
    told = commits.figures()
    told[-1].target = 5.0
    yield [
        Figure(f"a list of {OBJECTS:,} objects of 1 KB, to its last byte", "s", found["took"], 1.0),
        Figure("– to its first byte", "s", found["first"]),
        Figure("– its size", "MB", found["size"]),
        Figure("– edgecore's peak above what it had", "MB", found["peak"]),
        Figure("– that peak by the size of the answer", "", found["ratio"], 2.0, "2: two copies of it"),
        Figure(f"{WATCHERS} watchers: resident", "MB", found["watchers"], 10.0),
        *told,
        *sent.figures(),
    ]


def _start(line: Line) -> None:
    line.start_edge("embedded", wait=False)
    line.site.until(lambda: line.site.ask("edgecore", NODE).get("api"), "edgecore serves")
    time.sleep(SETTLE_S)


async def _fill(path: Path) -> None:
    deltas = [
        _delta(CONFIG_MAPS, f"config-{number:05}", {"data": {"value": VALUE}}, number) for number in range(OBJECTS)
    ]
    deltas.append(_pod("desk", 0))
    store = await Store.open(path)
    try:
        for first in range(0, len(deltas), 1000):
            some = tuple(deltas[first : first + 1000])
            await store.apply([Batch(Cursor("benchmark", 1 + first), some, first + 1000 >= len(deltas))])
    finally:
        await store.close()


def _pod(name: str, generation: int) -> Delta:
    spec: dict[str, JSON] = {"nodeName": NODE, "containers": [{"name": "main", "image": f"main:{generation}"}]}
    return _delta(PODS, name, {"spec": spec}, OBJECTS)


def _delta(resource: Resource, name: str, rest: dict[str, JSON], number: int) -> Delta:
    metadata: dict[str, JSON] = {"name": name, "namespace": "default", "uid": f"uid-{number}"}
    body = canonical({"apiVersion": "v1", "kind": resource.kind, "metadata": metadata, **rest})
    return Delta(ObjectKey(resource, "default", name), ObjectVersion(f"uid-{number}", revision_of(body)), body)


def _connect(line: Line) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", line.api_port, timeout=30)


def _list(line: Line) -> Iterator[tuple[str, float]]:
    """One list, read as it comes and not kept."""
    assert line.edge is not None, "started above"
    pid = line.edge.pid
    with closing(_connect(line)) as connection:
        connection.request("GET", f"{PODS_PATH}/desk")  # what a first answer imports is not the list's
        connection.getresponse().read()
        before = procfs.memory(pid).resident
        procfs.reset_peak(pid)
        began = time.perf_counter()
        connection.request("GET", "/api/v1/configmaps")
        answer = connection.getresponse()
        size = len(answer.read(1))
        yield "first", time.perf_counter() - began
        while chunk := answer.read(1 << 20):
            size += len(chunk)
        yield "took", time.perf_counter() - began
    assert answer.status == 200, answer.status
    assert size > OBJECTS * len(VALUE), size
    megabytes = size / 2**20
    peak = procfs.peak(pid) - before
    yield "size", megabytes
    yield "peak", peak
    yield "ratio", peak / megabytes


def _watchers(line: Line) -> float:
    """What a hundred open watches take, in MB, each of them having told an event."""
    assert line.edge is not None, "started above"
    version = _version(line)
    _patch_once(line, "a first write has been made")  # what it imports is not a watch's
    before = procfs.memory(line.edge.pid).resident
    with ExitStack() as stack:
        streams = []
        for _ in range(WATCHERS):
            connection = stack.enter_context(closing(_connect(line)))
            connection.request("GET", WATCH + version)
            streams.append(connection.getresponse())
        _patch_once(line, "to all")
        for stream in streams:
            while b"to all" not in stream.readline():
                pass
        time.sleep(SETTLE_S)
        return procfs.memory(line.edge.pid).resident - before


def _events(line: Line, count: int, sent: Times) -> None:
    """One watcher, one change at a time; the next when the last was told."""
    with ExitStack() as stack:
        watcher = stack.enter_context(_Watcher(line.api_port, _version(line)))
        connection = stack.enter_context(closing(_connect(line)))
        watcher.until_open()
        for number in range(count):
            began = time.perf_counter()
            _patch(connection, f"event {number}")
            sent.add((watcher.told() - began) * 1000)


async def _commits(directory: Path, count: int, commits: Times) -> None:
    """The same API in this process, so that the moment is known at which a commit is there; the watcher is outside."""
    store = await Store.open(directory / "commits.db")
    try:
        await store.apply([Batch(Cursor("benchmark", 1), (_pod("desk", 0),), True)])
        publish, published = store.feed.publish, list[float]()

        def noted(changes: Sequence[Change]) -> None:
            """Called with what is committed, in the loop's next turn."""
            published.append(time.perf_counter())
            publish(changes)

        store.feed.publish = noted  # type: ignore[method-assign]
        api = LocalApi(store, lambda: LinkState(True, None), host="127.0.0.1")
        port = free_port()
        async with serve(api, host="127.0.0.1", port=port):
            with _Watcher(port, str(store.feed.revision)) as watcher:
                await asyncio.to_thread(watcher.until_open)
                for number in range(count):
                    await store.apply([Batch(Cursor("benchmark", 2 + number), (_pod("desk", number + 1),), True)])
                    commits.add((await asyncio.to_thread(watcher.told) - published[-1]) * 1000)
    finally:
        await store.close()


class _Watcher:
    """A watch in a process of its own; perf_counter is one clock for all processes of a machine."""

    def __init__(self, port: int, version: str) -> None:
        self._arguments = [sys.executable, "-c", _WATCHING, str(port), WATCH + version]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._arguments, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None, "it was asked for"
        self._lines = self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._lines.close()

    def until_open(self) -> None:
        assert self._lines.readline() == "open\n"

    def told(self) -> float:
        """When the next event was there."""
        return float(self._lines.readline())


_WATCHING = """
import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", sys.argv[2])
answer = connection.getresponse()
print("open", flush=True)
while answer.readline():
    print(time.perf_counter(), flush=True)
"""


def _version(line: Line) -> str:
    with closing(_connect(line)) as connection:
        connection.request("GET", PODS_PATH)
        return str(json.load(connection.getresponse())["metadata"]["resourceVersion"])


def _patch_once(line: Line, message: str) -> None:
    with closing(_connect(line)) as connection:
        _patch(connection, message)


def _patch(connection: http.client.HTTPConnection, message: str) -> None:
    body = json.dumps({"status": {"message": message}})
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    connection.request("PATCH", f"{PODS_PATH}/desk/status", body, headers)
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status == 200, said
