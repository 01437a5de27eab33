"""A node's local API with a cloud near by, without sockets: requests in, answers out."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON
from apiserver.messages import Request
from metamanager.api import ApiLink, LinkState, LocalApi
from metamanager.store import Store
from tests.harness.nearcloud import NODE, NearCloud, near_cloud

CONFIG = "/api/v1/namespaces/default/configmaps"
NODE_BODY: dict[str, Any] = {
    "metadata": {"name": NODE},
    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
}
POD_BODY: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"nodeName": NODE, "containers": [{"name": "web", "image": "web:1"}]},
}
POD = "/api/v1/namespaces/default/pods/web"


class Got(NamedTuple):
    """An answer."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.body["items"]]

    @property
    def version(self) -> int:
        return int(self.body["metadata"]["resourceVersion"])


class EdgeApi:
    """One start of the node's agent, as far as its API goes."""

    def __init__(self, store: Store, cloud: NearCloud, link: ApiLink) -> None:
        self.store = store
        self.cloud = cloud
        self.link = link
        self.api = LocalApi(store, lambda: LinkState(cloud.connected, None), host="127.0.0.1", link=link)

    async def ask(self, method: str, target: str, body: JSON = None, content_type: str = "", **headers: str) -> Got:
        media_type = content_type or (
            "application/merge-patch+json" if method == "PATCH" else "application/json" if body is not None else ""
        )
        sent = {"content-type": media_type} | {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        response = await self.api(Request(method, target, sent, data))
        assert isinstance(response.body, bytes), "a watch is asked with watch()"
        told: dict[str, str] = {}
        for name, value in response.headers:
            told[name] = f"{told[name]}, {value}" if name in told else value
        is_json = told["content-type"].startswith("application/json")
        return Got(response.status, told, json.loads(response.body) if is_json else response.body)

    async def get(self, target: str, **headers: str) -> Got:
        return await self.ask("GET", target, **headers)

    @contextlib.asynccontextmanager
    async def watch(self, target: str) -> AsyncIterator[Callable[[], Any]]:
        """Each call awaits the next event."""
        response = await self.api(Request("GET", f"{target}{'&' if '?' in target else '?'}watch=1"))
        assert response.status == 200, response.body
        assert not isinstance(response.body, bytes)
        stream, pending = response.body, bytearray()

        async def event() -> Any:
            async with asyncio.timeout(10):
                while b"\n" not in pending:
                    pending.extend(await anext(stream))
            line, _, rest = bytes(pending).partition(b"\n")
            pending[:] = rest
            return json.loads(line)

        async with contextlib.aclosing(cast("AsyncGenerator[bytes, None]", stream)):
            yield event

    async def until_held(self, resource: Resource, name: str, namespace: str = "default") -> Any:
        """Wait until the store holds an object; its body."""
        key = ObjectKey(resource, namespace if resource.namespaced else "", name)
        async with asyncio.timeout(10):
            while (found := await self.store.get(key)) is None:
                await self.store.feed.wait(self.store.feed.revision)
        return found.object.parse()

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(10):
            while not await condition():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def started(directory: Path, cloud: NearCloud, *, idle_s: float = 1e6) -> AsyncIterator[EdgeApi]:
    """The agent's life from a start to a stop; what it remembers is in `directory`."""
    store = await Store.open(directory / "edge.db")
    link = ApiLink.over(store, cloud, NODE, idle_s)
    cloud.store, cloud.link = store, link
    tasks: list[asyncio.Task[None]] = []
    try:
        await link.load()
        if cloud.connected:
            await cloud.push()
        tasks = [asyncio.create_task(work, name="edge") for work in (cloud.run(), link.run())]
        yield EdgeApi(store, cloud, link)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()


@contextlib.asynccontextmanager
async def edge_and_cloud(directory: Path) -> AsyncIterator[EdgeApi]:
    """A node with one pod."""
    async with near_cloud(directory) as cloud:
        await cloud.ask("POST", "/api/v1/nodes", NODE_BODY)
        await cloud.ask("POST", "/api/v1/namespaces/default/pods", POD_BODY)
        async with started(directory, cloud) as edge:
            yield edge
