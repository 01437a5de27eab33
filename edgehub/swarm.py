"""
A swarm: the edge's ends of many nodes' links in one process, to see what a hub will carry before hardware is bought.

Its nodes are hollow. Each speaks the whole link, dials again after a loss and resumes after its cursor; it takes every
push apart, checks the objects against their versions, keeps them in memory and only then acknowledges. What is missing
is edgecore's disk and its twins, so a swarm loads the hub and the line and says nothing about edges. What one node has
unpacked the next one need not unpack again: on real nodes that work is spread over as many processors.

A node has a task only while it dials, so that ten thousand of them are ten thousand small objects.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from apimachinery.inventory import digest
from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import Object
from componentbase.allocator import Tidying
from edgehub.redial import delay_s
from edgehub.session import EdgeSession
from link.codec import decode
from link.errors import LinkError
from link.frames import Batch, Cursor, Delta, Held, Position, Refusal
from link.websocket import WriteBatch, dial

DIALLING = 64  # dials under way at once: a TLS handshake is 2 ms of this process's processor
COMMIT_S = 0.005  # from a push to its acknowledgement, about what a disk takes; what came meanwhile goes with it
COMMONS = 1024  # objects that were unpacked lately and may be what the next node is told
COMMON_BYTES = 4 << 20  # of their bodies, of 4 KB each

COMMON_FRAMES = 256

Intake = Callable[[Delta, Object | None], Object | Refusal]
"""The object that a delta, no removal, makes of what is held under its key; or why it cannot be taken."""


@dataclass
class SwarmCounters:
    """What a swarm has done since it started; each only grows."""

    dials: int = 0
    lost: int = 0
    pushes: int = 0
    deltas: int = 0
    refused: int = 0


class Swarm:
    """Hollow nodes that connect, and stay connected, while run() does."""

    def __init__(
        self,
        nodes: Iterable[tuple[Node, ssl.SSLContext | None]],
        host: str,
        port: int,
        intake: Intake,
        *,
        agent: str,
        draw: Callable[[], float],
    ) -> None:
        """nodes: with what each shows and trusts; None for no TLS. draw: uniform in [0, 1), for the waiting times."""
        self.counters = SwarmCounters()
        self.last_error = ""
        self._host, self._port = host, port
        self._intake = intake
        self._commons: OrderedDict[tuple[ObjectKey, str], Object] = OrderedDict()
        self._common_bytes = 0
        self.decode = lru_cache(COMMON_FRAMES)(decode)
        """What goes to all nodes is mostly the same frame, which is taken apart once."""
        self._agent = agent
        self._draw = draw
        self.batch = WriteBatch()
        self._committing: dict[_HollowNode, None] = {}
        self._dialling = asyncio.Semaphore(DIALLING)
        self._down: asyncio.Queue[tuple[_HollowNode, LinkError | None]] = asyncio.Queue()
        self._tidying = Tidying()
        self.nodes = [_HollowNode(self, name, context) for name, context in nodes]

    @property
    def connected(self) -> int:
        return sum(each.is_connected for each in self.nodes)

    @property
    def synced(self) -> int:
        """Nodes that hold all that the hub had for them."""
        return sum(each.is_synced for each in self.nodes)

    async def run(self) -> None:
        """Until cancelled."""
        for node in self.nodes:
            self._down.put_nowait((node, None))
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    node, error = await self._down.get()
                    tasks.create_task(self._bring_up(node, error), name=f"swarm[{node.name}]")
        finally:
            for node in self.nodes:
                node.hang_up()
            self._tidying.close()

    async def _bring_up(self, node: "_HollowNode", error: LinkError | None) -> None:
        while True:
            if error is not None:
                self.last_error = str(error)
                await asyncio.sleep(delay_s(error, node.failures, self._draw()))
            async with self._dialling:
                self.counters.dials += 1
                error = await node.dial(self._host, self._port)
            if error is None:
                return
            node.failures += 1

    def commit_later(self, node: "_HollowNode") -> None:
        """Give the node its turn when what has come in the meantime is committed together."""
        if not self._committing:
            asyncio.get_running_loop().call_later(COMMIT_S, self._commit_all)
        self._committing[node] = None

    def _commit_all(self) -> None:
        due, self._committing = self._committing, {}
        for node in due:
            node.commit()

    def lost(self, node: "_HollowNode", error: LinkError) -> None:
        self.counters.lost += 1
        node.failures += 1
        self._down.put_nowait((node, error))
        self._tidying.one_left(len(self.nodes))

    def take(self, delta: Delta, held: Object | None) -> Object | Refusal:
        """As intake, but what another node was told lately is shared."""
        assert delta.version is not None, "removals are nobody's object"
        place = (delta.key, delta.version.revision)
        found = self._commons.get(place)
        # The same revision is the same bytes; whether this node could have made them is asked all the same.
        fits = not delta.base or (held is not None and held.version.revision == delta.base)
        if found is not None and found.version == delta.version and fits:
            return found
        made = self._intake(delta, held)
        if isinstance(made, Object):
            self._share(place, made)
        return made

    def _share(self, place: tuple[ObjectKey, str], made: Object) -> None:
        commons = self._commons
        if (former := commons.pop(place, None)) is not None:
            self._common_bytes -= len(former.body)
        commons[place] = made
        self._common_bytes += len(made.body)
        while len(commons) > COMMONS or (self._common_bytes > COMMON_BYTES and len(commons) > 1):
            self._common_bytes -= len(commons.popitem(last=False)[1].body)


class _HollowNode:
    """One node's end of the link."""

    __slots__ = (
        "_agent",
        "_context",
        "_cursor",
        "_horizon",
        "_session",
        "_swarm",
        "_term",
        "failures",
        "name",
        "objects",
    )

    def __init__(self, swarm: Swarm, name: Node, context: ssl.SSLContext | None) -> None:
        self.name = name
        self.objects: dict[ObjectKey, Object] = {}
        self.failures = 0
        self._swarm = swarm
        self._context = context
        self._agent = swarm._agent
        self._session: EdgeSession | None = None
        self._cursor: Cursor | None = None
        self._horizon: dict[str, int] = {}
        self._term = 0

    @property
    def is_connected(self) -> bool:
        session = self._session
        return session is not None and session.error is None and session.is_welcome

    @property
    def is_synced(self) -> bool:
        return self.is_connected and self._session is not None and self._session.is_synced

    async def dial(self, host: str, port: int) -> LinkError | None:
        """Connect and say Hello; what follows needs no task. Returns why it did not work."""
        session = EdgeSession(
            self.name, agent=self._agent, clock=asyncio.get_running_loop(), wake=self._go_on, decode=self._swarm.decode
        )
        try:
            await dial(host, port, self._context, session.opened, batch=self._swarm.batch)
        except LinkError as error:
            return error
        if session.error is not None:
            return session.error
        self._session = session
        self._term += 1
        held = ((key, item.version) for key, item in self.objects.items())
        session.greet(self._cursor, digest(held), self._term, tuple(map(Position._make, self._horizon.items())))
        return None

    def hang_up(self) -> None:
        """End the connection, and do not dial again."""
        session, self._session = self._session, None
        if session is not None and session.error is None:
            session.pump.transport.close()

    def _go_on(self) -> None:
        session = self._session
        if session is None:
            return
        if session.error is not None:
            self._session = None
            self._swarm.lost(self, session.error)
            return
        if session.wants_inventory:
            session.send_inventory([Held(key, item.version) for key, item in self.objects.items()])
        self._swarm.commit_later(self)

    def commit(self) -> None:
        """Take in what has come, and acknowledge it."""
        session = self._session
        if session is None or session.error is not None:
            return
        while batches := session.take_batches():
            refusals = self._commit(batches)
            session.committed(batches, refusals)
            self.failures = 0

    def _commit(self, batches: Sequence[Batch]) -> dict[int, list[Refusal]]:
        counters = self._swarm.counters
        refusals: dict[int, list[Refusal]] = {}
        for batch in batches:
            counters.pushes += 1
            counters.deltas += len(batch.deltas)
            for delta in batch.deltas:
                if delta.version is None:
                    self.objects.pop(delta.key, None)
                    continue
                made = self._swarm.take(delta, self.objects.get(delta.key))
                if isinstance(made, Object):
                    self.objects[delta.key] = made
                else:
                    counters.refused += 1
                    refusals.setdefault(batch.cursor.seq, []).append(made)
            self._horizon |= dict(batch.horizon)
        self._cursor = batches[-1].cursor
        return refusals
