"""
A hub alone in its process, fed with a replayed watch: so that no apiserver is the limit.

It is the shipped hub, listener and link, and with a directory of certificates the shipped server context; only what
would come from the apiserver is made here, as the lines of a watch, and goes the way of every watch event from there:
parsed, projected, cached, placed, pushed. Without TLS, which the shipped hub does not offer, a node is who its Hello
says it is.

It reads commands from its standard input, a line each, and answers each with a line of JSON:

    everywhere COUNT        add so many objects of 600 B that every node holds
    pods COUNT NODES        add so many pods of 4 KB, spread over hollow-0 .. hollow-(NODES - 1)
    listen PORT             let nodes in; 0 for any free port. What was added before is there from the start
    wait NODES              until so many nodes are connected and in sync
    fanout ROUNDS           change one object of all nodes, wait until all have acknowledged it, again
    distinct ROUNDS         change one pod of each node, wait until all are acknowledged, again
    shared RATE COUNT       so many changes of objects that all hold, so many a second, whatever becomes of them
    own RATE COUNT          the same of pods, each on one node
    drop                    cut all connections; until as many nodes are back and in sync
    memory                  of this process
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import socket
import ssl
import struct
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apimachinery.events import WatchEvent
from apimachinery.keys import Node, Resource
from apimachinery.resources import CONFIG_MAPS, PODS
from apimachinery.watchcache import WatchCache
from benchmarks import certificates, procfs
from cloudhub.apiwire import event_of
from cloudhub.horizon import Advance
from cloudhub.identities import NODE_PREFIX
from cloudhub.outbox import Outbox
from cloudhub.placement import By, Placement, Rule
from cloudhub.projection import Projection
from cloudhub.server import HubServer
from cloudhub.session import Session
from componentbase.allocator import keep_large_blocks_apart
from componentbase.descriptors import allow_many_files
from link import websocket
from link.errors import LinkError
from link.frames import Ack, Frame, Hello, Report
from link.pump import Pump, Transport
from link.websocket import Listener
from tests.harness.pods import deployed_pod

RULES = (Rule(CONFIG_MAPS, By.ALL_NODES), Rule(PODS, By.FIELD, "spec.nodeName"))
BODY_BYTES = 600
SLICE = 64  # events taken in between two turns of the loop; a watch brings about as many with one read
BYTES_ACKED = 120  # of struct tcp_info (linux/tcp.h); tcpi_bytes_received follows
POLL_S = 0.02


class _Unreported:
    """Nobody takes reports here: cloudhub.session.ReportSink and NodeWatcher."""

    def accept(self, node: Node, session: Session, report: Report) -> None: ...

    def session_closed(self, session: Session) -> None: ...

    def session_up(self, node: Node, term: int) -> None: ...

    def session_down(self, node: Node) -> None: ...

    def last_term(self, node: Node) -> int:
        return 0


class _Overheard:
    """
    Stands before a session and tells the benchmark what it hears: link.pump.Handler.

    So nothing of the hub is put in another's place, and it may be compiled.
    """

    __slots__ = ("_process", "_session")

    def __init__(self, process: "HubProcess", session: Session) -> None:
        self._process = process
        self._session = session

    def frame_received(self, frame: Frame) -> None:
        session = self._session
        if isinstance(frame, Hello):
            self._process.introduced(session, frame)
        session.frame_received(frame)
        if isinstance(frame, Ack) and session.outbox is not None:
            self._process.settled(session.outbox, frame.seq)

    def link_lost(self, error: LinkError) -> None:
        self._session.link_lost(error)


class HubProcess:
    """The hub and what feeds it."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._cache = WatchCache(window=1)
        nothing = _Unreported()
        placement = Placement(RULES)
        self._projections = {each: Projection(each, placement.look) for each in placement.resources()}
        self.server = HubServer(self._cache, placement, nothing, nothing)
        self.listener: asyncio.Future[Listener] = asyncio.get_running_loop().create_future()
        self._context = context
        self._hub = self.server.hub
        self._version = 0
        self._shared = 0
        self._pods = 0
        self._spread = 1
        """Over so many nodes."""
        self._settled = self._awaited = 0
        self._all_settled = asyncio.Event()
        self._paced: defaultdict[Outbox, deque[tuple[int, float]]] = defaultdict(deque)
        """Changes under way: the number of the Push that has them, and when they came."""
        self._took: list[float] = []

    def opened(self, transport: Transport) -> Pump:
        """Hub.opened, but that what a node says is overheard, and without TLS believed."""
        if self._context is None:
            transport.identity = f"{NODE_PREFIX}{transport.remote}"  # until it says who it is
        pump = self._hub.opened(transport)
        if isinstance(pump._handler, Session):  # nobody's, where it was turned away
            pump._handler = _Overheard(self, pump._handler)
        return pump

    def introduced(self, session: Session, hello: Hello) -> None:
        """A node has said who it is."""
        if self._context is None:
            self._hub._lobby.greeted(session)
            session.node = Node(hello.node)

    def settled(self, outbox: Outbox, seq: int) -> None:
        """A node has acknowledged up to a Push."""
        if self._awaited and outbox.is_settled:
            self._settled += 1
            if self._settled == self._awaited:
                self._all_settled.set()
        if self._paced:
            self._note(outbox, seq)

    @property
    def nodes(self) -> int:
        return len(self._hub._sessions)

    def line(self, kind: str, body: dict[str, Any]) -> bytes:
        """An event as a watch brings it. Made before anything is measured: it is the apiserver's work."""
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)
        return json.dumps({"type": kind, "object": body}).encode()

    def take(self, resource: Resource, line: bytes) -> None:
        """What becomes of a line of a watch, up to the mark in the outboxes of whom it concerns."""
        event = event_of(resource, line)
        assert event.object is not None, "no bookmark"
        seen = self._projections[resource].seen(event.object)
        changes = self._cache.apply(WatchEvent(event.type, seen, event.resume_version), resource)
        self._hub.changed(changes)
        self._hub.advanced(resource, Advance(event.resume_version))

    # Commands

    async def listen(self, port: int) -> dict[str, int]:
        gc.freeze()  # where cloudcore does
        listener = await websocket.listen("127.0.0.1", port, self._context, self.opened)
        self.listener.set_result(listener)
        return {"port": listener.port}

    async def wait(self, nodes: int) -> dict[str, float]:
        began = time.perf_counter()
        while self.nodes < nodes or not all(  # noqa: ASYNC110 - a look at all nodes, which nothing announces
            each.outbox is not None and each.outbox.is_settled and each.outbox.synced_told
            for each in self._hub._sessions.values()
        ):
            await asyncio.sleep(POLL_S)
        return {"seconds": time.perf_counter() - began}

    async def everywhere(self, count: int) -> dict[str, float]:
        for number in range(self._shared, self._shared + count):
            self.take(CONFIG_MAPS, self.line("ADDED", _everywhere(number, 0)))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self._shared += count
        return await self.wait(self.nodes)

    async def pods(self, count: int, nodes: int) -> dict[str, float]:
        self._spread = nodes
        for number in range(self._pods, self._pods + count):
            self.take(PODS, self._pod_line("ADDED", number))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self._pods += count
        return await self.wait(self.nodes)

    async def fanout(self, rounds: int) -> dict[str, Any]:
        lines = [[self._shared_line(0)] for _ in range(rounds)]
        return await self._rounds(CONFIG_MAPS, lines)

    async def distinct(self, rounds: int) -> dict[str, Any]:
        lines = [[self._pod_line("MODIFIED", number) for number in range(self.nodes)] for _ in range(rounds)]
        return await self._rounds(PODS, lines)

    async def shared(self, rate: int, count: int) -> dict[str, Any]:
        lines = [self._shared_line(number % self._shared) for number in range(count)]

        def change(number: int) -> None:
            now = time.perf_counter()
            for session in self._hub._sessions.values():
                self._await(session, now)
            self.take(CONFIG_MAPS, lines[number])

        return await self._at_rate(rate, count, self.nodes, change)

    async def own(self, rate: int, count: int) -> dict[str, Any]:
        lines = [self._pod_line("MODIFIED", number % self._pods) for number in range(count)]

        def change(number: int) -> None:
            node = certificates.name_of(number % self._pods % self._spread)
            self._await(self._hub._sessions[node], time.perf_counter())
            self.take(PODS, lines[number])

        return await self._at_rate(rate, count, 1, change)

    async def drop(self) -> dict[str, float]:
        """Seconds until all are back; what the reconnect cost in bytes of the TCP streams, per node."""
        nodes, sessions = self.nodes, list(self._hub._sessions.values())
        counters = self._hub.counters
        before = counters.push_bytes
        began = time.perf_counter()
        for session in sessions:
            _asyncio_transport(session).abort()
        while set(sessions) & set(self._hub._sessions.values()):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(POLL_S)
        await self.wait(nodes)
        seconds = time.perf_counter() - began
        down, up = (sum(each) for each in zip(*map(_carried, self._hub._sessions.values()), strict=True))
        return {
            "seconds": seconds,
            "up": up / nodes,
            "down": down / nodes,
            "push_bytes": counters.push_bytes - before,
        }

    async def memory(self) -> dict[str, float]:
        gc.collect()
        return procfs.memory(os.getpid())._asdict()

    # How they are done

    async def _rounds(self, resource: Resource, rounds: list[list[bytes]]) -> dict[str, Any]:
        """
        Take the lines of a round, wait until every node has acknowledged, again.

        Milliseconds of each round until the last acknowledgement; processor seconds in all, for a frame to each node
        in each round.
        """
        took: list[float] = []
        used = time.process_time()
        for lines in rounds:
            self._settled, self._awaited = 0, self.nodes
            self._all_settled.clear()
            began = time.perf_counter()
            for place, line in enumerate(lines, 1):
                self.take(resource, line)
                if place % SLICE == 0:
                    await asyncio.sleep(0)
            await self._all_settled.wait()
            took.append((time.perf_counter() - began) * 1000)
        self._awaited = 0
        frames = len(rounds) * self.nodes
        return {"frames": frames, "processor_s": time.process_time() - used, "milliseconds": took}

    def _shared_line(self, number: int) -> bytes:
        return self.line("MODIFIED", _everywhere(number, self._version))

    def _pod_line(self, kind: str, number: int) -> bytes:
        """The pod is made anew from its number: kept as it is, it would be most of this process's memory."""
        pod = deployed_pod(number, certificates.name_of(number % self._spread), random.Random(number))
        pod["metadata"].update(namespace="default", uid=f"pod-{number}")
        pod["metadata"]["annotations"]["round"] = str(self._version)
        return self.line(kind, pod)

    async def _at_rate(self, rate: int, count: int, frames: int, change: Callable[[int], None]) -> dict[str, Any]:
        """Milliseconds from each change until each node that it concerns has acknowledged it."""
        self._took, began, used = [], time.perf_counter(), time.process_time()
        for number in range(count):
            wait_s = began + number / rate - time.perf_counter()
            # A clock that is late is not waited for, but frames must get their turn.
            if wait_s > 0 or number % SLICE == 0:
                await asyncio.sleep(max(0.0, wait_s))
            change(number)
        lasted = time.perf_counter() - began
        while self._paced:  # noqa: ASYNC110 - the last acknowledgements, within milliseconds
            await asyncio.sleep(0.001)
        return {
            "frames": count * frames,
            "processor_s": time.process_time() - used,
            "milliseconds": self._took,
            "rate": count / lasted,
        }

    def _note(self, outbox: Outbox, seq: int) -> None:
        waiting = self._paced.get(outbox)
        now = time.perf_counter()
        while waiting and waiting[0][0] <= seq:
            self._took.append((now - waiting.popleft()[1]) * 1000)
        if waiting is not None and not waiting:
            del self._paced[outbox]

    def _await(self, session: Session, since: float) -> None:
        """What is changed now goes with the node's next Push."""
        assert session.outbox is not None, "all are in sync"
        self._paced[session.outbox].append((session.outbox.sent_seq + 1, since))


def _asyncio_transport(session: Session) -> asyncio.Transport:
    transport: asyncio.Transport = session.pump.transport._transport  # type: ignore[attr-defined]
    return transport


def _carried(session: Session) -> tuple[int, int]:
    """Bytes of the TCP stream down to the node, and up."""
    sock: socket.socket = _asyncio_transport(session).get_extra_info("socket")
    facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, BYTES_ACKED + 16)
    acked, received = struct.unpack_from("=QQ", facts, BYTES_ACKED)
    return acked, received


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


async def _main(pki: Path | None) -> None:
    process = HubProcess(certificates.hub_context(pki) if pki else None)
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        await process.server.run(await process.listener)

    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve(), name="hub")
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name, *numbers = line.split()
            answer = await getattr(process, name)(*map(int, numbers))
            print(json.dumps(answer), flush=True)
        serving.cancel()


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser(prog="hubprocess", description="A hub without an apiserver; commands on stdin.")
    parser.add_argument("--pki", type=Path, help="a directory of certificates, see benchmarks/certificates.py")
    allow_many_files()
    keep_large_blocks_apart()  # as cloudcore does
    logging.getLogger("cloudhub").setLevel(logging.ERROR)  # links are lost on purpose
    uvloop.run(_main(parser.parse_args().pki))
