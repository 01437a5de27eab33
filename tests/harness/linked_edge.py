"""
The link's end at an edge, without the rest of edgecore: the real connector on the real store, in the test's process.

    async with linked_edge(site, "edge-1") as edge:
        edge.connector.want([Interest(WIDGETS)])
        await edge.until(lambda: edge.is_complete(Interest(WIDGETS)))
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from apimachinery.keys import Node, ObjectKey, Resource
from edgehub.connector import Connector, Hubs, LinkStatus
from edgehub.session import Answered
from link.frames import Batch, CallHead, GoodbyeCode, Interest, Refusal, RefusedInterest
from link.websocket import WebSocket
from metamanager.errors import StoreError
from metamanager.store import Store

WITHIN_S = 20.0


class Book:
    """Is an edgehub.connector.Selections: what was told last."""

    def __init__(self) -> None:
        self.refused: dict[Interest, RefusedInterest] = {}
        self.granted: set[Interest] = set()
        self.resources: tuple[Resource, ...] = ()
        self.completed_: set[Interest] = set()

    def decided(
        self, interests: Sequence[Interest], refused: Sequence[RefusedInterest], resources: Sequence[Resource]
    ) -> None:
        self.refused = {refusal.interest: refusal for refusal in refused}
        self.granted = set(interests) - set(self.refused)
        self.resources = tuple(resources)
        self.completed_ &= self.granted

    def completed(self, interests: Sequence[Interest]) -> None:
        self.completed_ |= set(interests)


class LinkedEdge:
    """One node."""

    def __init__(self, connector: Connector, store: Store, book: Book, batches: list[Batch]) -> None:
        self.connector = connector
        self.store = store
        self.book = book
        self.batches = batches
        """Everything that was committed, in order."""

    def is_complete(self, interest: Interest) -> bool:
        return interest in self.book.completed_

    def refusal(self, interest: Interest) -> tuple[int, str]:
        """(code, reason); (0, "") where it is not refused."""
        found = self.book.refused.get(interest)
        return (found.code, found.reason) if found else (0, "")

    async def body(self, key: ObjectKey) -> dict[str, Any] | None:
        found = await self.store.get(key)
        return None if found is None else json.loads(found.object.body)

    async def names(self, resource: Resource) -> list[str]:
        return sorted(held.key.name for held in await self.store.held() if held.key.resource == resource)

    async def call(self, method: str, target: str, body: Any = None, **head: str) -> tuple[Answered, Any]:
        """The answer, and its body parsed."""
        kinds = {"PATCH": "application/merge-patch+json"}
        content = b"" if body is None else json.dumps(body).encode()
        told = {"content_type": kinds.get(method, "application/json") if content else "", "accept": "application/json"}
        answer = await self.connector.call(CallHead(method, target, **{**told, **head}), content)
        return answer, json.loads(answer.body) if answer.body.startswith(b"{") else None

    async def until(self, condition: Callable[[], object | Awaitable[object]]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while True:
                found = condition()
                if await found if isinstance(found, Awaitable) else found:
                    return
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def linked_edge(
    home: Path, node: str, port: int, *, interests: Sequence[Interest] = ()
) -> AsyncIterator[LinkedEdge]:
    """home: where `edgecore join` put the identity, and where the store is. Runs while the block lasts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=home / "pki" / "ca.crt")
    context.load_cert_chain(home / "pki" / "edge.crt", home / "pki" / "edge.key")
    store, book, committed = await Store.open(home / "edge.db"), Book(), list[Batch]()

    async def commit(batches: Sequence[Batch]) -> Mapping[int, Sequence[Refusal]]:
        refusals = (await store.apply(batches)).refusals
        committed.extend(batches)
        return refusals

    connector = Connector(
        Node(node),
        Hubs("127.0.0.1", port, context),
        store,
        commit,
        agent="test",
        draw=lambda: 0.02,
        status=LinkStatus(),
        selections=book,
        store_errors=(StoreError,),
    )
    connector.want(interests)
    running = asyncio.create_task(connector.run(), name="connector")
    try:
        yield LinkedEdge(connector, store, book, committed)
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        if (session := connector._session) is not None:
            session.pump.close(GoodbyeCode.SHUTDOWN, "the test is over")
            assert isinstance(session.pump.transport, WebSocket)
            await session.pump.transport.lost
        await store.close()
