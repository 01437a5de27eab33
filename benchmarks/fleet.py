"""
Many nodes in one process: as many edge ends of the link as a hub is to serve, each with a certificate of its own.

Each is the shipped connector over TLS and holds what it was pushed, in memory where edgecore has SQLite: what comes
is unpacked, checked and kept, the digest is that of what is kept. So a fleet measures the hub and the link, not the
disks of edges.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from apimachinery.inventory import digest
from apimachinery.keys import Node, ObjectKey
from apimachinery.objects import Object
from componentbase.endpoints import Endpoint
from edgehub.connector import Connector, Hubs, LinkStatus, hub_context
from edgehub.join import CA_FILE, CERTIFICATE_FILE, KEY_FILE, PKI, join
from link.frames import Batch, Cursor, Held, Position, Refusal, RefusedReport, ReportEntry, Traffic
from metamanager.intake import Untakable, take, unfold


class Memory:
    """What a node holds; edgehub.connector.Store."""

    def __init__(self) -> None:
        self.objects: dict[ObjectKey, Object] = {}
        self._cursor: Cursor | None = None
        self._horizon: dict[str, int] = {}
        self._term = 0

    async def cursor(self) -> Cursor | None:
        return self._cursor

    async def digest(self) -> bytes:
        return digest((key, item.version) for key, item in self.objects.items())

    async def horizon(self) -> tuple[Position, ...]:
        return tuple(map(Position._make, self._horizon.items()))

    async def next_term(self, above: int, *, is_reset: bool) -> int:
        self._term = (above if is_reset else max(self._term, above)) + 1
        return self._term

    async def held(self) -> list[Held]:
        return [Held(key, item.version) for key, item in self.objects.items()]

    async def pending_reports(self, after: int, limit_bytes: int, traffic: Traffic) -> list[tuple[int, ReportEntry]]:
        return []

    async def put_ahead(self, item: Object, goes_on: Callable[[], bool]) -> None: ...

    async def settle_reports(self, rows: Sequence[int], refused: Sequence[RefusedReport]) -> None: ...

    async def commit(self, batches: Sequence[Batch]) -> Mapping[int, Sequence[Refusal]]:
        for batch in batches:
            for delta in batch.deltas:
                if delta.version is None:
                    self.objects.pop(delta.key, None)
                    continue
                try:
                    self.objects[delta.key] = take(unfold(delta, self.objects.get(delta.key)))
                except Untakable as exc:
                    raise AssertionError(f"{delta.key} cannot be taken: {exc}") from exc
            self._cursor = batch.cursor
            self._horizon |= dict(batch.horizon)
        return {}


class Fleet:
    """Nodes that are connected, or dial, while the block lasts. They run in a thread of their own."""

    def __init__(self, names: Sequence[str], directory: Path, hub_port: int) -> None:
        self.stores = {name: Memory() for name in names}
        self.statuses = {name: LinkStatus() for name in names}
        self._directory = directory
        self._hub_port = hub_port
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="fleet", daemon=True)

    def enrol(self, cloud: Endpoint, token: str) -> None:
        for name in self.stores:
            join(cloud, token, Node(name), self._directory / name, lambda _: "")

    @property
    def connected(self) -> int:
        return sum(status.connected for status in self.statuses.values())

    @property
    def synced(self) -> int:
        return sum(status.synced for status in self.statuses.values())

    def __enter__(self) -> Self:
        logging.getLogger("edgehub").setLevel(logging.ERROR)  # links are lost on purpose
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            dialling = [tasks.create_task(self._connector(name).run(), name=name) for name in self.stores]
            await self._stop.wait()
            for task in dialling:
                task.cancel()

    def _connector(self, name: str) -> Connector:
        home = self._directory / name / PKI
        context = hub_context(home / CA_FILE, home / CERTIFICATE_FILE, home / KEY_FILE)
        store = self.stores[name]
        return Connector(
            Node(name),
            Hubs("127.0.0.1", self._hub_port, context),
            store,
            store.commit,
            agent="benchmark",
            draw=random.Random(name).random,
            status=self.statuses[name],
        )
