"""
A hub alone in its process, fed with a replayed watch: so that no apiserver is the limit.

It is the shipped hub, listener and link; only what would come from the apiserver is made here, as the lines of a watch,
and goes the way of every watch event from there: parsed, projected, cached, placed, pushed. Without TLS, which the
shipped hub does not offer, a node is who its Hello says it is.

It reads commands from its standard input, a line each, and answers each with a line of JSON:

    wait N                until N nodes are connected and in sync
    everywhere COUNT      add so many objects of 600 B that every node holds
    pods COUNT            add so many pods of 4 KB, spread over the nodes
    fanout ROUNDS         change one object of all nodes, wait until all have acknowledged it, again
    distinct ROUNDS       change one pod of each node, wait until all are acknowledged, again
    memory                of this process
"""

import asyncio
import gc
import json
import os
import random
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from apimachinery.events import Change, WatchEvent
from apimachinery.keys import Node, Resource
from apimachinery.resources import CONFIG_MAPS, PODS
from apimachinery.watchcache import WatchCache
from benchmarks import procfs
from cloudhub.apiwire import event_of
from cloudhub.identities import NODE_PREFIX
from cloudhub.outbox import Outbox
from cloudhub.placement import By, Placement, Rule
from cloudhub.projection import Projection
from cloudhub.server import HubServer
from cloudhub.sessions import Session
from link.frames import Hello, ReportEntry
from link.pump import Pump, Transport
from tests.harness.pods import deployed_pod

RULES = (Rule(CONFIG_MAPS, By.ALL_NODES), Rule(PODS, By.FIELD, "spec.nodeName"))
BODY_BYTES = 600
SLICE = 64  # events taken in between two turns of the loop; a watch brings about as many with one read


class _Unreported:
    """Nobody takes reports here: cloudhub.sessions.ReportSink and NodeWatcher."""

    def accept(self, node: Node, session: Session, seq: int, entries: tuple[ReportEntry, ...]) -> None: ...

    def session_closed(self, session: Session) -> None: ...

    def session_up(self, node: Node, term: int) -> None: ...

    def session_down(self, node: Node) -> None: ...


class HubProcess:
    """The hub and what feeds it."""

    def __init__(self, secure: bool) -> None:
        self._cache = WatchCache(window=1)
        nothing = _Unreported()
        placement = Placement(RULES)
        self._projections = {each: Projection(each, placement.look) for each in placement.resources()}
        self.server = HubServer(self._cache, placement, nothing, nothing)
        self._hub = hub = self.server.hub
        self._version = 0
        self._rng = random.Random(1)
        self._pods: list[dict[str, Any]] = []
        self._settled = 0
        self._awaited = 0
        self._all_settled = asyncio.Event()
        settle = Outbox.settle

        def counted(outbox: Outbox, seq: int) -> None:
            settle(outbox, seq)
            if self._awaited and outbox.is_settled:
                self._settled += 1
                if self._settled == self._awaited:
                    self._all_settled.set()

        Outbox.settle = counted  # type: ignore[method-assign, assignment]
        if not secure:
            heard, opened = hub.hello, hub.opened

            def admitting(transport: Transport) -> Pump:
                transport.identity = f"{NODE_PREFIX}whoever"
                return opened(transport)

            def trusting(session: Session, hello: Hello) -> None:
                session.node = Node(hello.node)
                heard(session, hello)

            hub.opened, hub.hello = admitting, trusting  # type: ignore[method-assign]

    @property
    def nodes(self) -> int:
        return len(self._hub._sessions)

    def take(self, resource: Resource, kind: str, body: dict[str, Any]) -> list[Change]:
        """One event, as the line of a watch."""
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        event = event_of(resource, json.dumps({"type": kind, "object": body}).encode())
        assert event.object is not None, "no bookmark"
        seen = self._projections[resource].seen(event.object)
        changes = self._cache.apply(WatchEvent(event.type, seen, event.resume_version), resource)
        self._hub.changed(changes)
        return changes

    async def wait(self, nodes: int) -> dict[str, float]:
        began = time.perf_counter()
        while self.nodes < nodes or not all(  # noqa: ASYNC110 - a look at all nodes, which nothing announces
            each.outbox is not None and each.outbox.is_settled and each.outbox.synced_told
            for each in self._hub._sessions.values()
        ):
            await asyncio.sleep(0.02)
        return {"seconds": time.perf_counter() - began}

    async def everywhere(self, count: int) -> dict[str, float]:
        for number in range(count):
            self.take(CONFIG_MAPS, "ADDED", _everywhere(number, 0))
        return await self.wait(self.nodes)

    async def pods(self, count: int) -> dict[str, float]:
        names = list(self._hub._sessions)
        for number in range(count):
            pod = deployed_pod(number, names[number % len(names)], self._rng)
            pod["metadata"].update(namespace="default", uid=f"pod-{number}")
            self._pods.append(pod)
            self.take(PODS, "ADDED", pod)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return await self.wait(self.nodes)

    async def fanout(self, rounds: int) -> dict[str, Any]:
        return await self._rounds(rounds, self._change_everywhere)

    async def distinct(self, rounds: int) -> dict[str, Any]:
        return await self._rounds(rounds, self._change_pods)

    async def memory(self, _: int) -> dict[str, float]:
        gc.collect()
        return procfs.memory(os.getpid())._asdict()

    async def _rounds(self, rounds: int, change: Callable[[int], Awaitable[int]]) -> dict[str, Any]:
        """Each round's change and wait: milliseconds until the last acknowledgement, processor seconds in all."""
        took: list[float] = []
        frames = 0
        used = time.process_time()
        for number in range(rounds):
            self._settled, self._awaited = 0, self.nodes
            self._all_settled.clear()
            began = time.perf_counter()
            frames += await change(number)
            await self._all_settled.wait()
            took.append((time.perf_counter() - began) * 1000)
        self._awaited = 0
        return {"frames": frames, "processor_s": time.process_time() - used, "milliseconds": took}

    async def _change_everywhere(self, number: int) -> int:
        self.take(CONFIG_MAPS, "MODIFIED", _everywhere(0, number + 1))
        return self.nodes

    async def _change_pods(self, number: int) -> int:
        for place, pod in enumerate(self._pods[: self.nodes]):
            pod["metadata"]["annotations"]["round"] = f"{number}-{time.time_ns()}"
            self.take(PODS, "MODIFIED", pod)
            if place % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        return self.nodes


def _everywhere(number: int, value: int) -> dict[str, Any]:
    name = f"everywhere-{number}"
    rng = random.Random(number * 1_000_003 + value)
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "data": {"value": str(value), "changing": f"{rng.getrandbits(320):080x}"},
    }
    text = random.Random(number)
    body["data"]["rest"] = f"{text.getrandbits(4 * BODY_BYTES):x}"[: BODY_BYTES - len(json.dumps(body))]  # type: ignore[index]
    return body


async def _commands(process: HubProcess) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, _, number = line.strip().partition(" ")
        answer = await getattr(process, name)(int(number or 0))
        print(json.dumps(answer), flush=True)


async def _main(pki: Path | None) -> None:
    context: ssl.SSLContext | None = None
    if pki is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(pki / "ca.crt")
        context.load_cert_chain(pki / "hub.crt", pki / "hub.key")
    process = HubProcess(context is not None)
    listener = await process.server.listen("127.0.0.1", 0, context)
    print(json.dumps({"port": listener.port, "pid": os.getpid()}), flush=True)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(process.server.run(listener), name="hub")
        await _commands(process)
        serving.cancel()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
