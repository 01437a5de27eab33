"""Several served versions of one kind: each reads, writes and watches the same objects in its own form."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import BadRequest, NotFound
from apimachinery.keys import Resource
from apiserver.collector import collect
from apiserver.definitions import Definition
from apiserver.discovery import About
from apiserver.handlers import Api
from apiserver.storage import Storage
from apiserver.versions import presented
from apiserver.writes import PlannedWrites
from tests.test_apiserver_crds import crd
from tests.test_apiserver_handlers import TABLE, Client

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OLD = "/apis/example.com/v1beta1/namespaces/d/lamps"
NEW = "/apis/example.com/v1/namespaces/d/lamps"
APPLY = "application/apply-patch+yaml"


def version(name: str, spec: dict[str, Any], **rest: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    return {"name": name, "served": True, "storage": False, "schema": {"openAPIV3Schema": schema}} | rest


def definition() -> dict[str, Any]:
    made = crd()
    watts, text = {"type": "integer"}, {"type": "string"}
    made["spec"]["versions"] = [
        version("v1beta1", {"watts": watts, "old": {"type": "string"}}),
        version("v1", {"watts": watts, "hue": {"type": "string", "default": "red"}}),
        version("v1alpha1", {"watts": watts, "hue": text, "old": text}, served=False, storage=True),
    ]
    return made


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with Storage.open(f"sqlite:///{tmp_path / 'a.db'}") as storage:
        made = Client(Api(storage, PlannedWrites(storage), about=About("test", "0")), storage)
        await made("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
        await made("POST", CRDS, definition())
        yield made


async def test_what_one_version_writes_the_other_reads_in_its_form(client: Client) -> None:
    made = await client("POST", OLD, {"metadata": {"name": "l"}, "spec": {"watts": 5, "old": "x", "hue": "blue"}})
    assert (made["apiVersion"], made["spec"]) == ("example.com/v1beta1", {"watts": 5, "old": "x"})
    read = await client("GET", f"{NEW}/l")
    assert (read["apiVersion"], read["spec"]) == ("example.com/v1", {"watts": 5, "hue": "red"})
    assert read["metadata"]["uid"] == made["metadata"]["uid"]
    listed = await client("GET", NEW)
    assert [listed["apiVersion"], *(item["apiVersion"] for item in listed["items"])] == ["example.com/v1"] * 2
    table = await client("GET", OLD, accept=TABLE)
    assert [row["cells"][0] for row in table["rows"]] == ["l"]


async def test_the_stored_version_is_the_definitions(client: Client) -> None:
    await client("POST", NEW, {"metadata": {"name": "l"}, "spec": {"watts": 5}})
    stored = [change.object for change in client.storage.since(0) if change.object.key.name == "l"]
    assert [item.parse()["apiVersion"] for item in stored] == ["example.com/v1alpha1"]
    with pytest.raises(NotFound):
        await client("GET", "/apis/example.com/v1alpha1/namespaces/d/lamps/l")


async def test_all_verbs_work_in_every_version(client: Client) -> None:
    made = await client("POST", OLD, {"metadata": {"name": "l"}, "spec": {"watts": 5}})
    put = await client("PUT", f"{NEW}/l", made | {"apiVersion": "example.com/v1", "spec": {"watts": 6}})
    assert (put["apiVersion"], put["spec"]) == ("example.com/v1", {"watts": 6, "hue": "red"})
    patched = await client("PATCH", f"{OLD}/l", {"spec": {"watts": 7}})
    assert (patched["apiVersion"], patched["spec"]["watts"]) == ("example.com/v1beta1", 7)
    same = await client("PATCH", f"{NEW}/l", {"spec": {"watts": 7, "hue": "red"}})
    assert same["apiVersion"] == "example.com/v1"
    with pytest.raises(BadRequest, match="does not match the expected API version"):
        await client("PUT", f"{NEW}/l", made)
    config = {"apiVersion": "example.com/v1", "kind": "Lamp", "metadata": {"name": "l"}, "spec": {"hue": "blue"}}
    applied = await client("PATCH", f"{NEW}/l?fieldManager=me&force=true", config, content_type=APPLY)
    assert (applied["apiVersion"], applied["spec"]["hue"]) == ("example.com/v1", "blue")
    writers = {entry["manager"]: entry["apiVersion"] for entry in applied["metadata"]["managedFields"]}
    assert writers["me"] == "example.com/v1"
    assert (await client("DELETE", f"{OLD}/l"))["status"] == "Success"
    with pytest.raises(NotFound):
        await client("GET", f"{NEW}/l")


async def test_a_watch_shows_the_version_it_asked_for(client: Client) -> None:
    await client("POST", OLD, {"metadata": {"name": "l"}, "spec": {"watts": 5}})
    response = await client.ask("GET", f"{NEW}?watch=1&resourceVersion=0&timeoutSeconds=5")
    assert not isinstance(response.body, bytes)
    async with asyncio.timeout(5):
        first = json.loads(await anext(response.body))
        await client("PATCH", f"{OLD}/l", {"spec": {"watts": 6}})
        second = json.loads(await anext(response.body))
    await response.body.aclose()  # type: ignore[attr-defined]
    told = [
        (event["type"], event["object"]["apiVersion"], event["object"]["spec"]["watts"]) for event in (first, second)
    ]
    assert told == [("ADDED", "example.com/v1", 5), ("MODIFIED", "example.com/v1", 6)]


async def test_discovery_prefers_the_stable_version(client: Client) -> None:
    group = await client("GET", "/apis/example.com")
    assert [entry["version"] for entry in group["versions"]] == ["v1", "v1beta1"]
    assert group["preferredVersion"]["version"] == "v1"


async def test_after_a_restart_all_versions_are_there(client: Client, tmp_path: Path) -> None:
    await client("POST", OLD, {"metadata": {"name": "l"}, "spec": {"watts": 5}})
    async with Storage.open(f"sqlite:///{tmp_path / 'a.db'}") as storage:
        again = Client(Api(storage, about=About("test", "0")), storage)
        assert (await again("GET", f"{NEW}/l"))["spec"] == {"watts": 5, "hue": "red"}
        assert (await again("GET", f"{OLD}/l"))["spec"] == {"watts": 5}


async def test_a_definition_goes_after_its_objects_of_all_versions(client: Client) -> None:
    await client("POST", OLD, {"metadata": {"name": "l", "finalizers": ["example.com/hold"]}})
    async with asyncio.TaskGroup() as group:
        collector = group.create_task(collect(client.storage), name="collector")
        await client("DELETE", f"{CRDS}/lamps.example.com")
        async with asyncio.timeout(5):
            while "deletionTimestamp" not in (await client("GET", f"{NEW}/l"))["metadata"]:
                await asyncio.sleep(0.01)
            await client("PATCH", f"{NEW}/l", {"metadata": {"finalizers": None}})
            while True:
                try:
                    await client("GET", f"{CRDS}/lamps.example.com")
                except NotFound:
                    break
                await asyncio.sleep(0.01)
        collector.cancel()


def test_an_object_in_its_own_version_is_not_touched() -> None:
    body = b'{"kind":"Lamp",  "apiVersion":"example.com/v1"}'
    resource = Resource("example.com", "v1", "lamps", "Lamp", True)
    assert presented(body, Definition(resource)) is body
    assert presented(body, Definition(resource, stored_version="v1")) is body
    status = b'{"kind":"Status"}'
    assert presented(status, Definition(resource, stored_version="v2")) is status
