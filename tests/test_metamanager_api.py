"""The local API over real sockets and a real store, with curl's means and with stock kubectl."""

import asyncio
import http.client
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from apimachinery.keys import Resource
from apimachinery.objects import JSON, from_json
from apimachinery.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEVICE_GROUP,
    DEVICES,
    NODES,
    PODS,
    SECRETS,
)
from apiserver.http import AddressInUse
from cloudhub.projection import project
from link.frames import Batch, Cursor, Delta
from metamanager.api import STALE_HEADER, LinkState, is_loopback, serve_local_api
from metamanager.store import Store
from tests.conftest import GO
from tests.harness.store_history import removal

CREATED = "2026-01-02T03:04:05Z"
NEVER = LinkState(in_sync=False, left_sync_at_ms=None)


def delta(resource: Resource, name: str, labels: Mapping[str, str] | None = None, **fields: JSON) -> Delta:
    metadata: dict[str, JSON] = {"name": name, "uid": f"uid-{name}", "creationTimestamp": CREATED}
    if resource.namespaced:
        metadata["namespace"] = "default"
    if labels:
        metadata["labels"] = dict(labels)
    value = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata} | fields
    item = project(from_json(resource, value))
    return Delta(item.key, item.version, item.body)


def device(name: str, node: str = "edge-1", **labels: str) -> Delta:
    return delta(DEVICES, name, labels, spec={"nodeName": node, "deviceModelRef": {"name": "thermostat"}})


DEFINITION = delta(
    CUSTOM_RESOURCE_DEFINITIONS,
    "devices.devices.kubeedge.io",
    spec={
        "group": DEVICE_GROUP,
        "scope": "Namespaced",
        "names": {"plural": "devices", "kind": "Device", "singular": "device"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "additionalPrinterColumns": [{"name": "Node", "type": "string", "jsonPath": ".spec.nodeName"}],
            }
        ],
    },
)
HELD = (
    DEFINITION,
    delta(NODES, "edge-1", status={"conditions": [{"type": "Ready", "status": "True"}]}),
    delta(PODS, "web", {"app": "web"}, spec={"nodeName": "edge-1", "containers": [{"name": "web", "image": "web:1"}]}),
    delta(CONFIG_MAPS, "settings", {"app": "web"}, data={"color": "blue"}),
    delta(CONFIG_MAPS, "other", data={}),
    delta(SECRETS, "password", type="Opaque", data={"p": "eA=="}),
    device("thermostat", app="heating"),
)


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, JSON]:
        value: dict[str, JSON] = json.loads(self.body)
        return value


class Served:
    """A store and its API; `seq` numbers what is applied."""

    def __init__(self, store: Store, port: int) -> None:
        self.store = store
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.seq = 0

    async def apply(self, *deltas: Delta, synced: bool = True) -> int:
        """Commit; the revision afterwards."""
        self.seq += 1
        await self.store.apply([Batch(Cursor("epoch", self.seq), deltas, synced)], now_ms=1_000_000)
        return self.store.feed.revision

    async def request(self, method: str, path: str, **headers: str) -> Answer:
        def ask() -> Answer:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request(method, path, headers=headers)
                response = connection.getresponse()
                return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
            finally:
                connection.close()

        return await asyncio.to_thread(ask)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, **headers)

    @asynccontextmanager
    async def lines(self, path: str) -> AsyncIterator[Callable[[], "asyncio.Future[dict[str, JSON]]"]]:
        """A watch; each call awaits the next event."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        pending = bytearray()

        async def event() -> dict[str, JSON]:
            while b"\n" not in pending:
                size = int(await reader.readline(), 16)
                pending.extend(await reader.readexactly(size))
                await reader.readexactly(2)
            line, _, rest = bytes(pending).partition(b"\n")
            pending[:] = rest
            found: dict[str, JSON] = json.loads(line)
            return found

        try:
            yield lambda: asyncio.ensure_future(asyncio.wait_for(event(), 10))
        finally:
            writer.close()

    async def run(self, kubectl: Path, *args: str, home: Path) -> tuple[int, str]:
        """A kubectl without any configuration; its exit code and all it wrote."""
        process = await asyncio.create_subprocess_exec(
            *(str(kubectl), "--server", self.url, "--cache-dir", str(home / "cache"), *args),
            env={"HOME": str(home), "PATH": os.environ["PATH"], **GO},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(40):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()


@asynccontextmanager
async def served(directory: Path, link_state: LinkState = NEVER) -> AsyncIterator[Served]:
    store = await Store.open(directory / "edge.db")
    try:
        async with serve_local_api(store, host="127.0.0.1", port=0, link_state=lambda: link_state) as server:
            yield Served(store, server.port)
    finally:
        await store.close()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """Served, with HELD in sync."""
    async with served(tmp_path) as api:
        await api.apply(*HELD)
        yield api


PATHS = ["/api/v1/pods", "/api/v1/namespaces/default/pods/web", "/api/v1/pods?watch=1", "/apis", "/api/v1", "/readyz"]


@pytest.mark.parametrize("path", PATHS)
async def test_before_the_first_sync_nothing_is_answered(tmp_path: Path, path: str) -> None:
    async with served(tmp_path) as api:
        await api.apply(*HELD, synced=False)
        answer = await api.get(path)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers[STALE_HEADER] == "unknown"
        assert "never been in sync" in answer.json()["message"]
        assert (await api.get("/livez")).status == 200
        await api.apply()
        if "watch" not in path:
            assert (await api.get(path)).status == 200


async def test_being_synced_once_is_enough_also_after_a_restart(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        revision = await api.apply(*HELD)
        await api.apply(synced=False)
    async with served(tmp_path) as api:
        answer = await api.get("/api/v1/pods")
        assert [item["metadata"]["name"] for item in answer.json()["items"]] == ["web"]
        assert answer.json()["metadata"]["resourceVersion"] == str(revision)
        devices = await api.get(f"{DEVICES.path()}")
        assert [item["metadata"]["name"] for item in devices.json()["items"]] == ["thermostat"]


@pytest.mark.parametrize(
    ("state", "low", "high"),
    [(LinkState(True, None), 0, 0), (LinkState(False, 0), 1_600_000_000, 1 << 40), (NEVER, 1_600_000_000, 1 << 40)],
    ids=["in sync", "left sync", "since the last sync on disk"],
)
async def test_every_answer_says_how_stale_it_is(tmp_path: Path, state: LinkState, low: int, high: int) -> None:
    async with served(tmp_path, state) as api:
        await api.apply(*HELD)
        for path in ("/api/v1/pods", "/api/v1/pods/", "/nowhere", "/healthz"):
            assert low <= int((await api.get(path)).headers[STALE_HEADER]) <= high


async def test_a_clock_set_back_does_not_look_like_being_in_sync(tmp_path: Path) -> None:
    async with served(tmp_path, LinkState(False, 1 << 50)) as api:
        await api.apply()
        assert (await api.get("/healthz")).headers[STALE_HEADER] == "1"


async def test_lists_select_and_page(api: Served) -> None:
    async def names(query: str) -> list[str]:
        answer = await api.get(f"/api/v1/namespaces/default/configmaps?{query}")
        assert answer.status == 200, answer.body
        return [item["metadata"]["name"] for item in answer.json()["items"]]

    assert await names("") == ["other", "settings"]
    assert await names("labelSelector=app%3Dweb") == ["settings"]
    assert await names("fieldSelector=metadata.name%3Dother") == ["other"]
    first = (await api.get("/api/v1/configmaps?limit=1")).json()
    assert [item["metadata"]["name"] for item in first["items"]] == ["other"]
    assert await names(f"limit=1&continue={first['metadata']['continue']}") == ["settings"]
    pods = await api.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dedge-1")
    assert len(pods.json()["items"]) == 1
    assert (await api.get("/api/v1/pods?fieldSelector=spec.color%3Dred")).status == 400


async def test_a_list_that_is_continued_shows_the_moment_at_which_it_began(api: Served) -> None:
    first = (await api.get("/api/v1/configmaps?limit=1")).json()
    await api.apply(removal(HELD[3]), delta(CONFIG_MAPS, "zoo"))
    rest = (await api.get(f"/api/v1/configmaps?limit=5&continue={first['metadata']['continue']}")).json()
    assert [item["metadata"]["name"] for item in rest["items"]] == ["settings"]
    assert rest["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


async def test_objects_carry_the_local_revision_of_their_last_change(api: Served) -> None:
    before = (await api.get("/api/v1/namespaces/default/configmaps/settings")).json()
    revision = await api.apply(delta(CONFIG_MAPS, "settings", data={"color": "red"}))
    after = (await api.get("/api/v1/namespaces/default/configmaps/settings")).json()
    assert after["metadata"]["resourceVersion"] == str(revision)
    assert int(before["metadata"]["resourceVersion"]) < revision
    assert after["data"] == {"color": "red"}
    other = (await api.get("/api/v1/namespaces/default/configmaps/other")).json()
    assert int(other["metadata"]["resourceVersion"]) < int(before["metadata"]["resourceVersion"]) + len(HELD)


async def test_a_watch_resumes_from_a_list_and_sees_what_leaves_its_selection(api: Served) -> None:
    listed = (await api.get(DEVICES.path() + "?labelSelector=app%3Dheating")).json()
    version = listed["metadata"]["resourceVersion"]
    await api.apply(device("boiler", app="heating"))
    path = f"{DEVICES.path()}?watch=1&labelSelector=app%3Dheating&resourceVersion={version}"
    async with api.lines(path) as event:
        seen = await event()
        assert (seen["type"], seen["object"]["metadata"]["name"]) == ("ADDED", "boiler")
        await api.apply(device("lamp", app="light"), device("boiler", app="light"))
        seen = await event()
        assert (seen["type"], seen["object"]["metadata"]["labels"]) == ("DELETED", {"app": "heating"})
        revision = await api.apply(device("thermostat", "edge-1", app="heating", floor="2"))
        seen = await event()
        assert (seen["type"], seen["object"]["metadata"]["resourceVersion"]) == ("MODIFIED", str(revision))


async def test_a_watch_from_a_forgotten_revision_is_told_to_list_again(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        version = await api.apply(*HELD)
        await api.apply(delta(CONFIG_MAPS, "later"))
    async with served(tmp_path) as api, api.lines(f"/api/v1/configmaps?watch=1&resourceVersion={version}") as event:
        seen = await event()
        assert (seen["type"], seen["object"]["code"], seen["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_watch_ends_when_the_agent_stops(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        await api.apply(*HELD)
        async with api.lines("/api/v1/configmaps?watch=1&resourceVersion=0") as event:
            assert (await event())["type"] == "ADDED"
            assert (await event())["type"] == "ADDED"
            await api.store.close()
            seen = await event()
            assert (seen["type"], seen["object"]["code"]) == ("ERROR", 503)


async def test_kinds_come_and_go_with_their_definitions(api: Served) -> None:
    assert (await api.get("/apis/devices.kubeedge.io/v1beta1")).json()["resources"][0]["name"] == "devices"
    await api.apply(removal(DEFINITION), removal(HELD[-1]))
    assert (await api.get("/apis/devices.kubeedge.io/v1beta1")).status == 404
    assert (await api.get(DEVICES.path())).status == 404
    await api.apply(device("thermostat"))
    assert len((await api.get(DEVICES.path())).json()["items"]) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_writes_are_refused_with_where_to_make_them(api: Served, method: str) -> None:
    answer = await api.request(method, "/api/v1/namespaces/default/configmaps/settings")
    assert (answer.status, answer.json()["reason"]) == (405, "MethodNotAllowed")
    assert "at the cluster's apiserver" in answer.json()["message"]
    assert STALE_HEADER in answer.headers


async def test_names_that_point_here_are_refused(api: Served) -> None:
    assert (await api.get("/api/v1/secrets", Host="evil.example")).status == 403
    for host in ("127.0.0.1:1", "localhost", "localhost:80", "[::1]:80", "[::1]", "10.0.0.1"):
        assert (await api.get("/api/v1/secrets", Host=host)).status == 200, host


async def test_secrets_stay_on_loopback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = await Store.open(tmp_path / "edge.db")
    async with serve_local_api(store, host="0.0.0.0", port=0, link_state=lambda: NEVER) as server:
        api = Served(store, server.port)
        await api.apply(*HELD)
        assert (await api.get("/api/v1/secrets")).status == 404
        assert (await api.get("/api/v1/namespaces/default/secrets/password")).status == 404
        assert (await api.get("/api/v1/configmaps")).status == 200
        names = [entry["name"] for entry in (await api.get("/api/v1")).json()["resources"]]
        assert "secrets" not in names
    await store.close()
    assert "does not serve Secrets" in caplog.text


async def test_a_store_that_cannot_be_read_is_unavailable_not_empty(api: Served) -> None:
    await api.get("/api/v1/pods")
    await api.store.close()
    for path in ("/api/v1/pods", "/api/v1/namespaces/default/pods/web"):
        answer = await api.get(path)
        assert answer.status == 503
        assert "cannot be read" in answer.json()["message"]


async def test_a_taken_port_is_said_so(api: Served) -> None:
    with pytest.raises(AddressInUse, match=f"port {api.port} is taken"):
        async with serve_local_api(api.store, host="127.0.0.1", port=api.port, link_state=lambda: NEVER):
            pass


def test_what_loopback_is() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("", "0.0.0.0", "::", "10.0.0.1", "edge.example")] == [False] * 5


# Stock kubectl, as the `kubectl` fixture gives it: without any configuration.


async def test_kubectl_reads_what_the_node_holds(api: Served, kubectl: Path, tmp_path: Path) -> None:
    async def run(*args: str) -> str:
        code, output = await api.run(kubectl, *args, home=tmp_path)
        assert code == 0, output
        return output

    lines = (await run("get", "devices,pods,configmaps", "-A")).splitlines()
    words = [line.split() for line in lines if line]
    assert ["NAMESPACE", "NAME", "NODE"] in words
    assert ["default", "device.devices.kubeedge.io/thermostat", "edge-1"] in words
    assert [line[:3] for line in words if "pod/web" in line] == [["default", "pod/web", "0/1"]]
    assert [line[1:3] for line in words if "configmap/settings" in line] == [["configmap/settings", "1"]]
    assert (await run("get", "nodes")).splitlines()[1].split()[:2] == ["edge-1", "Ready"]
    assert await run("get", "configmaps", "-l", "app=web", "-o", "name") == "configmap/settings\n"
    assert "color: blue" in await run("get", "configmap", "settings", "-o", "yaml")
    described = await run("describe", "device", "thermostat")
    assert "Node Name:" in described
    assert "edge-1" in described
    assert "Image:" in await run("describe", "pod", "web")


async def test_kubectl_watches(api: Served, kubectl: Path, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(kubectl), "--server", api.url, "--cache-dir", str(tmp_path), "get", "devices", "-w", "-o", "name"),
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], **GO},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert await process.stdout.readline() == b"device.devices.kubeedge.io/thermostat\n"
            await api.apply(device("boiler"))
            assert await process.stdout.readline() == b"device.devices.kubeedge.io/boiler\n"
    finally:
        process.terminate()
        await process.communicate()


async def test_kubectl_says_why_it_cannot_write(api: Served, kubectl: Path, tmp_path: Path) -> None:
    code, output = await api.run(kubectl, "delete", "configmap", "settings", home=tmp_path)
    assert code == 1
    assert "make the change at the cluster's apiserver" in output
