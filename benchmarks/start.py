"""
From starting edgecore until its local API answers, with 1,000 objects in its store and no hub to be reached.

This is what a node without a network does after a power cut.
"""

import asyncio
import http.client
import time
from collections.abc import Iterator
from pathlib import Path

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import canonical, revision_of
from apimachinery.resources import CONFIG_MAPS
from benchmarks.figures import Figure
from benchmarks.line import NODE, Line
from link.frames import Batch, Cursor, Delta
from metamanager.store import Store

OBJECTS = 1000
VALUE = "x" * 450  # makes a body of 600 bytes
STARTS_PER_RUN = 3
WITHIN_S = 20.0


def measure(runs: int, quick: bool, edgecore: Path | None) -> Iterator[list[Figure]]:
    """The first answer, and a list of everything right after it."""
    first, everything = [], []
    with Line("embedded", 1, edgecore=edgecore) as line:
        line.stop_edge()
        line.site.processes["cloud"].stop()
        asyncio.run(_fill(line.site.directory / NODE / "edge.db"))
        line.start_edge("embedded", wait=False)  # unmeasured: the files are read once
        _until_answer(line)
        line.stop_edge()
        for _ in range(runs * (1 if quick else STARTS_PER_RUN)):
            began = time.perf_counter()
            line.start_edge("embedded", wait=False)
            _until_answer(line)
            answered = time.perf_counter()
            body = _get(line, "/api/v1/configmaps")
            assert body is not None, "it answered a moment ago"
            assert body.count(b'"uid"') == OBJECTS, body[:200]
            first.append(answered - began)
            everything.append(time.perf_counter() - answered)
            line.stop_edge()
    yield [
        Figure(f"edgecore started -> local API answers, {OBJECTS:,} objects held", "s", first, 1.0, is_promise=True),
        Figure(f"a list of {OBJECTS:,} objects of 600 B right after that", "s", everything),
    ]


async def _fill(path: Path) -> None:
    store = await Store.open(path)
    try:
        deltas = []
        for number in range(OBJECTS):
            name = f"config-{number:04}"
            metadata = {"name": name, "namespace": "default", "uid": f"uid-{number}"}
            body = canonical({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": VALUE}})
            version = ObjectVersion(f"uid-{number}", revision_of(body))
            deltas.append(Delta(ObjectKey(CONFIG_MAPS, "default", name), version, body))
        await store.apply([Batch(Cursor("benchmark", 1), tuple(deltas), True)])
    finally:
        await store.close()


def _until_answer(line: Line) -> None:
    by = time.monotonic() + WITHIN_S
    while _get(line, "/api/v1/namespaces/default/configmaps/config-0999") is None:
        assert time.monotonic() < by, f"edgecore does not answer:\n{line.edge_log()}"
        time.sleep(0.002)


def _get(line: Line, path: str) -> bytes | None:
    connection = http.client.HTTPConnection("127.0.0.1", line.api_port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except ConnectionRefusedError:
        return None
    finally:
        connection.close()
    assert answer.status == 200, body
    return body
