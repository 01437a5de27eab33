"""The collector, beside a real storage and the real way in."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import NotFound
from apiserver.collector import collect
from apiserver.discovery import About
from apiserver.handlers import Api
from apiserver.storage import Storage
from apiserver.writes import PlannedWrites
from tests.test_apiserver_crds import crd
from tests.test_apiserver_handlers import Client

CONFIGS = "/api/v1/namespaces/d/configmaps"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
LAMPS = "/apis/example.com/v1/namespaces/d/lamps"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with Storage.open(f"sqlite:///{tmp_path / 'a.db'}") as storage:
        made = Client(Api(storage, PlannedWrites(storage), about=About("test", "0")), storage)
        await made("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
        async with asyncio.TaskGroup() as group:
            collector = group.create_task(collect(storage), name="collector")
            yield made
            collector.cancel()


async def gone(client: Client, *targets: str) -> None:
    async with asyncio.timeout(5):
        for target in targets:
            while True:
                try:
                    await client("GET", target)
                except NotFound:
                    break
                await asyncio.sleep(0.01)


def owned(name: str, *owners: Any, **metadata: Any) -> dict[str, Any]:
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
        }
        for owner in owners
    ]
    return {"metadata": {"name": name, "ownerReferences": references} | metadata}


async def test_dependents_go_with_their_owner_and_theirs_with_them(client: Client) -> None:
    owner = await client("POST", CONFIGS, {"metadata": {"name": "owner"}})
    child = await client("POST", CONFIGS, owned("child", owner))
    await client("POST", CONFIGS, owned("grandchild", child))
    await client("POST", CONFIGS, {"metadata": {"name": "stranger"}})
    await client("DELETE", f"{CONFIGS}/owner")
    await gone(client, f"{CONFIGS}/child", f"{CONFIGS}/grandchild")
    assert await client("GET", f"{CONFIGS}/stranger")


async def test_an_object_stays_while_one_owner_does(client: Client) -> None:
    one = await client("POST", CONFIGS, {"metadata": {"name": "one"}})
    two = await client("POST", CONFIGS, {"metadata": {"name": "two"}})
    await client("POST", CONFIGS, owned("child", one, two))
    await client("POST", CONFIGS, owned("marker", one))
    await client("DELETE", f"{CONFIGS}/one")
    await gone(client, f"{CONFIGS}/marker")
    assert await client("GET", f"{CONFIGS}/child")
    await client("DELETE", f"{CONFIGS}/two")
    await gone(client, f"{CONFIGS}/child")


async def test_an_object_whose_owner_was_never_there_goes_but_not_one_of_an_unknown_kind(client: Client) -> None:
    lost = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "uid": "nobody"}}
    foreign = {"apiVersion": "elsewhere.io/v1", "kind": "Thing", "metadata": {"name": "x", "uid": "nobody"}}
    await client("POST", CONFIGS, owned("foreign", foreign))
    await client("POST", CONFIGS, owned("lost", lost))
    await gone(client, f"{CONFIGS}/lost")
    assert await client("GET", f"{CONFIGS}/foreign")


def blocking(name: str, *owners: Any, **metadata: Any) -> dict[str, Any]:
    made = owned(name, *owners, **metadata)
    for reference in made["metadata"]["ownerReferences"]:
        reference["blockOwnerDeletion"] = True
    return made


async def until(client: Client, target: str, holds: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(5):
        while not holds(found := await client("GET", target)):
            await asyncio.sleep(0.01)
    return found


FOREGROUND = {"propagationPolicy": "Foreground"}


async def test_in_the_foreground_an_owner_goes_after_all_that_block_it(client: Client) -> None:
    owner = await client("POST", CONFIGS, {"metadata": {"name": "owner"}})
    child = await client("POST", CONFIGS, blocking("child", owner, finalizers=["example.com/hold"]))
    await client("POST", CONFIGS, blocking("grandchild", child, finalizers=["example.com/hold"]))
    await client("POST", CONFIGS, owned("bystander", owner, finalizers=["example.com/hold"]))
    response = await client.ask("DELETE", f"{CONFIGS}/owner", FOREGROUND)
    assert response.status == 202
    marked = await client("GET", f"{CONFIGS}/owner")
    assert (marked["metadata"]["finalizers"], "deletionTimestamp" in marked["metadata"]) == (
        ["foregroundDeletion"],
        True,
    )
    held = await until(client, f"{CONFIGS}/child", lambda found: "deletionTimestamp" in found["metadata"])
    assert held["metadata"]["finalizers"] == ["example.com/hold", "foregroundDeletion"]
    await until(client, f"{CONFIGS}/bystander", lambda found: "deletionTimestamp" in found["metadata"])
    await client("PATCH", f"{CONFIGS}/child", {"metadata": {"finalizers": ["foregroundDeletion"]}})
    await until(client, f"{CONFIGS}/grandchild", lambda found: "deletionTimestamp" in found["metadata"])
    assert await client("GET", f"{CONFIGS}/owner")
    await client("PATCH", f"{CONFIGS}/grandchild", {"metadata": {"finalizers": None}})
    await gone(client, *(f"{CONFIGS}/{name}" for name in ("grandchild", "child", "owner")))
    assert await client("GET", f"{CONFIGS}/bystander"), "it does not block, and its finalizer holds it"


async def test_in_the_foreground_a_dependent_with_another_owner_only_loses_its_reference(client: Client) -> None:
    owner = await client("POST", CONFIGS, {"metadata": {"name": "owner"}})
    other = await client("POST", CONFIGS, {"metadata": {"name": "other"}})
    await client("POST", CONFIGS, blocking("shared", owner, other))
    await client("DELETE", f"{CONFIGS}/owner?propagationPolicy=Foreground")
    await gone(client, f"{CONFIGS}/owner")
    shared = await client("GET", f"{CONFIGS}/shared")
    assert [reference["name"] for reference in shared["metadata"]["ownerReferences"]] == ["other"]


async def test_who_stops_blocking_lets_its_owner_go(client: Client) -> None:
    owner = await client("POST", CONFIGS, {"metadata": {"name": "owner"}})
    await client("POST", CONFIGS, blocking("child", owner, finalizers=["example.com/hold"]))
    await client("DELETE", f"{CONFIGS}/owner", FOREGROUND)
    await until(client, f"{CONFIGS}/child", lambda found: "deletionTimestamp" in found["metadata"])
    assert await client("GET", f"{CONFIGS}/owner")
    await client("PATCH", f"{CONFIGS}/child", {"metadata": owned("child", owner)["metadata"]})
    await gone(client, f"{CONFIGS}/owner")
    assert await client("GET", f"{CONFIGS}/child")


async def test_a_later_background_deletion_waits_for_nobody(client: Client) -> None:
    owner = await client("POST", CONFIGS, {"metadata": {"name": "owner"}})
    await client("POST", CONFIGS, blocking("child", owner, finalizers=["example.com/hold"]))
    await client("DELETE", f"{CONFIGS}/owner", FOREGROUND)
    assert await client("GET", f"{CONFIGS}/owner")
    await client("DELETE", f"{CONFIGS}/owner", {"propagationPolicy": "Background"})
    await gone(client, f"{CONFIGS}/owner")
    assert await client("GET", f"{CONFIGS}/child")


async def test_a_finalizer_that_was_there_before_says_how_to_delete(client: Client) -> None:
    owner = await client("POST", CONFIGS, {"metadata": {"name": "owner", "finalizers": ["foregroundDeletion"]}})
    await client("POST", CONFIGS, blocking("child", owner))
    await client("DELETE", f"{CONFIGS}/owner")
    await gone(client, f"{CONFIGS}/child", f"{CONFIGS}/owner")
    kept = await client("POST", CONFIGS, {"metadata": {"name": "kept", "finalizers": ["orphan"]}})
    await client("POST", CONFIGS, owned("left", kept))
    await client("DELETE", f"{CONFIGS}/kept")
    await gone(client, f"{CONFIGS}/kept")
    assert "ownerReferences" not in (await client("GET", f"{CONFIGS}/left"))["metadata"]


async def test_orphans_are_left(client: Client) -> None:
    owner = await client("POST", CONFIGS, {"metadata": {"name": "owner"}})
    await client("POST", CONFIGS, owned("child", owner))
    await client("DELETE", f"{CONFIGS}/owner?propagationPolicy=Orphan")
    other = await client("POST", CONFIGS, {"metadata": {"name": "other"}})
    await client("POST", CONFIGS, owned("marker", other))
    await client("DELETE", f"{CONFIGS}/other")
    await gone(client, f"{CONFIGS}/marker")
    assert "ownerReferences" not in (await client("GET", f"{CONFIGS}/child"))["metadata"]


async def test_a_namespace_goes_after_its_content_and_waits_for_finalizers(client: Client) -> None:
    await client("POST", "/api/v1/namespaces", {"metadata": {"name": "e"}})
    place = "/api/v1/namespaces/e/configmaps"
    await client("POST", place, {"metadata": {"name": "a"}})
    await client("POST", place, {"metadata": {"name": "held", "finalizers": ["x.y/z"]}})
    assert (await client("DELETE", "/api/v1/namespaces/e"))["status"]["phase"] == "Terminating"
    await gone(client, f"{place}/a")
    assert await client("GET", "/api/v1/namespaces/e")
    await client("PATCH", f"{place}/held", {"metadata": {"finalizers": None}})
    await gone(client, "/api/v1/namespaces/e")


async def test_a_definition_takes_its_objects_along(client: Client) -> None:
    await client("POST", CRDS, crd())
    await client("POST", LAMPS, {"metadata": {"name": "l"}})
    await client("DELETE", f"{CRDS}/lamps.example.com")
    await gone(client, f"{LAMPS}/l", f"{CRDS}/lamps.example.com", LAMPS)


async def test_what_was_left_undone_is_done_at_the_next_start(tmp_path: Path) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    old = "2020-01-01T00:00:00Z"
    async with Storage.open(f"sqlite:///{tmp_path / 'a.db'}") as storage:
        client = Client(Api(storage, PlannedWrites(storage), about=About("test", "0")), storage)
        for name in ("d", "leaving"):
            await client("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        owner = await client("POST", CONFIGS, {"metadata": {"name": "owner"}})
        await client("POST", CONFIGS, owned("child", owner))
        await client("DELETE", f"{CONFIGS}/owner")
        await client("DELETE", "/api/v1/namespaces/leaving")
        events = "/api/v1/namespaces/d/events"
        for name, seen in (("new", now), ("old", old)):
            await client("POST", events, {"metadata": {"name": name}, "lastTimestamp": seen})
        assert await client("GET", f"{CONFIGS}/child")
        async with asyncio.TaskGroup() as group:
            collector = group.create_task(collect(storage), name="collector")
            await gone(client, f"{CONFIGS}/child", "/api/v1/namespaces/leaving", f"{events}/old")
            assert await client("GET", f"{events}/new")
            collector.cancel()
