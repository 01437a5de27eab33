"""
How fast an edge's store takes what a hub pushes: objects per second, committed.

Straight into the store of edgecore, in a process of its own: every delta goes through the intake (unpacked, checked
against its version), the records and the commit, in batches of what one transaction holds. The file is on a real disk
and durable as on a node. Beside it the same over the link, into a real edgecore (benchmarks/onenode.py).
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import canonical, revision_of
from apimachinery.resources import CONFIG_MAPS
from benchmarks import onenode
from benchmarks.figures import Figure, Measured
from benchmarks.pair import ROOT
from link.frames import Batch, Cursor, Delta
from metamanager.store import Store

COUNT = 20_000
BATCH = 512  # what a Push holds at most; a transaction takes what has come, up to 1 MiB of bodies
PER_SECOND = 10_000.0


def measure(runs: int, quick: bool, edgecore: Path | None, pki: Path) -> Iterator[list[Measured]]:
    """New objects, then the same ones changed; then over the link."""
    count = 200 if quick else COUNT
    added, changed, costs = [], [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            command = [sys.executable, "-m", "benchmarks.edgeapply", directory, str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        told = json.loads(done.stdout)
        added.append(count / told["added_s"])
        changed.append(count / told["changed_s"])
        costs.append(told["processor_s"] / (2 * count) * 1e6)
    about = f"{count:,} objects of 600 B into the edge's store in batches of {BATCH}"
    yield [
        Figure(f"{about}: new ones per second", "1/s", added, PER_SECOND, at_least=True, is_promise=True),
        Figure(f"{about}: changed ones per second", "1/s", changed, PER_SECOND, at_least=True),
        Figure(f"{about}: processor for each", "us", costs),
    ]
    yield onenode.first_sync(min(runs, 2), quick, edgecore, pki)


async def _apply(directory: Path, count: int) -> dict[str, float]:
    store = await Store.open(directory / "edge.db")
    try:
        took = []
        used = 0.0
        for turn in range(2):
            batches = _batches(count, turn)
            began, before = time.perf_counter(), time.process_time()
            for batch in batches:
                applied = await store.apply([batch])
                assert not applied.refusals, applied.refusals
            took.append(time.perf_counter() - began)
            used += time.process_time() - before
        assert await store.object_count() == count
    finally:
        await store.close()
    return {"added_s": took[0], "changed_s": took[1], "processor_s": used}


def _batches(count: int, turn: int) -> list[Batch]:
    deltas = [_delta(number, turn) for number in range(count)]
    starts = range(0, count, BATCH)
    first = turn * len(starts) + 1
    return [
        Batch(Cursor("benchmark", seq), tuple(deltas[place : place + BATCH]), True)
        for seq, place in enumerate(starts, first)
    ]


def _delta(number: int, turn: int) -> Delta:
    metadata = {"name": f"config-{number}", "namespace": "default", "uid": f"uid-{number}"}
    body = canonical({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": f"{turn:0450}"}})
    version = ObjectVersion(f"uid-{number}", revision_of(body))
    return Delta(ObjectKey(CONFIG_MAPS, "default", f"config-{number}"), version, body)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_apply(Path(sys.argv[1]), int(sys.argv[2])))))
