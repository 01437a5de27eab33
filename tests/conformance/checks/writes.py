"""Writes and reviews, which are the cluster's to answer."""

import contextlib
from collections.abc import AsyncGenerator
from typing import cast

from tests.conformance.checks.bench import Bench, names, refusal
from tests.conformance.contract import CONFIG_MAP, SECRET, SERVICE_ACCOUNT, WIDGET, Event
from tests.conformance.seeds import ACCOUNT, FINALIZER


async def create(bench: Bench) -> None:
    made = await bench.client.create(WIDGET, WIDGET.body("created", spec={"size": 7}))
    assert made["spec"] == {"size": 7}
    assert (await bench.client.get(WIDGET, "created"))["metadata"]["uid"] == made["metadata"]["uid"]
    assert "created" in names((await bench.client.listing(WIDGET)).items)
    await bench.client.create(CONFIG_MAP, CONFIG_MAP.body("created", data={"a": "1"}))
    assert (await bench.client.get(CONFIG_MAP, "created"))["data"] == {"a": "1"}


async def own_write(bench: Bench) -> None:
    listed = await bench.client.listing(WIDGET)
    made = await bench.client.create(WIDGET, WIDGET.body("own", spec={"size": 1}))
    events = cast("AsyncGenerator[Event, None]", bench.client.watch(WIDGET, listed.version))
    async with contextlib.aclosing(events):
        async for event in events:
            if event.name == "own":
                assert (event.type, event.version) == ("ADDED", made["metadata"]["resourceVersion"])
                return


async def create_existing(bench: Bench) -> None:
    async with refusal("AlreadyExists", 'widgets.example.com "w0" already exists'):
        await bench.client.create(WIDGET, WIDGET.body("w0", spec={"size": 1}))


async def create_invalid(bench: Bench) -> None:
    async with refusal("Invalid", "spec.size"):
        await bench.client.create(WIDGET, WIDGET.body("invalid", spec={"size": 0}))


async def strict(bench: Bench) -> None:
    async with refusal("BadRequest", 'unknown field "spec.colour"'):
        await bench.client.create_strictly(WIDGET, WIDGET.body("strict", spec={"size": 1, "colour": "red"}))
    async with refusal("NotFound"):
        await bench.client.get(WIDGET, "strict")


async def generate_name(bench: Bench) -> None:
    body = WIDGET.body("", spec={"size": 1})
    body["metadata"] = {"generateName": "gen-"}
    made = await bench.client.create(WIDGET, body)
    name = made["metadata"]["name"]
    assert name.startswith("gen-")
    assert len(name) > len("gen-")
    assert (await bench.client.get(WIDGET, name))["spec"] == {"size": 1}


async def dry_run(bench: Bench) -> None:
    made = await bench.client.create(WIDGET, WIDGET.body("dry", spec={"size": 1}), dry_run=True)
    assert made["metadata"]["uid"]
    async with refusal("NotFound"):
        await bench.client.get(WIDGET, "dry")


async def update(bench: Bench) -> None:
    found = await bench.client.get(WIDGET, bench.own("update"))
    found["spec"] = {"size": 2}
    replaced = await bench.client.replace(WIDGET, found)
    assert replaced["spec"] == {"size": 2}
    assert replaced["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]
    again = await bench.client.get(WIDGET, bench.own("update"))
    assert again["spec"] == {"size": 2}
    again["spec"]["size"] = 3
    assert (await bench.client.replace(WIDGET, again))["spec"] == {"size": 3}


async def stale_update(bench: Bench) -> None:
    stale = await bench.client.get(WIDGET, bench.own("stale-update"))
    fresh = {**stale, "spec": {"size": 2}}
    await bench.client.replace(WIDGET, fresh)
    async with refusal("Conflict", "the object has been modified"):
        await bench.client.replace(WIDGET, {**stale, "spec": {"size": 3}})
    assert (await bench.client.get(WIDGET, bench.own("stale-update")))["spec"] == {"size": 2}


async def json_patch(bench: Bench) -> None:
    operations = [
        {"op": "test", "path": "/spec/size", "value": 1},
        {"op": "replace", "path": "/spec/size", "value": 4},
        {"op": "add", "path": "/spec/parts/-", "value": "b"},
    ]
    patched = await bench.client.patch(WIDGET, bench.own("json-patch"), operations, "json")
    assert patched["spec"] == {"size": 4, "parts": ["a", "b"]}
    assert (await bench.client.get(WIDGET, bench.own("json-patch")))["spec"] == patched["spec"]


async def merge_patch(bench: Bench) -> None:
    patched = await bench.client.patch(WIDGET, bench.own("merge-patch"), {"spec": {"parts": None, "size": 4}}, "merge")
    assert patched["spec"] == {"size": 4}
    assert (await bench.client.get(WIDGET, bench.own("merge-patch")))["spec"] == {"size": 4}


async def strategic_patch(bench: Bench) -> None:
    patch = {"metadata": {"finalizers": [f"{FINALIZER}-2"]}, "data": {"b": "2"}}
    patched = await bench.client.patch(CONFIG_MAP, bench.own("strategic"), patch, "strategic")
    assert patched["data"] == {"a": "1", "b": "2"}
    assert set(patched["metadata"]["finalizers"]) == {f"{FINALIZER}-1", f"{FINALIZER}-2"}, "a set is merged"


async def server_side_apply(bench: Bench) -> None:
    body = WIDGET.body("applied", spec={"size": 1, "parts": ["a"]})
    await bench.client.apply(WIDGET, body, "one")
    assert (await bench.client.get(WIDGET, "applied"))["spec"] == body["spec"]
    await bench.client.apply(WIDGET, WIDGET.body("applied", spec={"size": 2}), "one")
    assert (await bench.client.get(WIDGET, "applied"))["spec"] == {"size": 2}, "what one no longer says goes"


async def apply_conflict(bench: Bench) -> None:
    await bench.client.apply(WIDGET, WIDGET.body("contended", spec={"size": 1}), "one")
    other = WIDGET.body("contended", spec={"size": 2})
    async with refusal("Conflict", "one", ".spec.size"):
        await bench.client.apply(WIDGET, other, "two")
    forced = await bench.client.apply(WIDGET, other, "two", force=True)
    assert forced["spec"] == {"size": 2}


async def status_subresource(bench: Bench) -> None:
    both = {"spec": {"size": 9}, "status": {"phase": "Done"}}
    patched = await bench.client.patch(WIDGET, bench.own("status"), both, status=True)
    assert (patched["spec"]["size"], patched["status"]) == (1, {"phase": "Done"})
    patched = await bench.client.patch(WIDGET, bench.own("status"), {"spec": {"size": 9}, "status": {"phase": "Lost"}})
    assert (patched["spec"]["size"], patched["status"]) == (9, {"phase": "Done"})


async def delete(bench: Bench) -> None:
    await bench.client.delete(WIDGET, bench.own("delete"))
    async with refusal("NotFound"):
        await bench.client.get(WIDGET, bench.own("delete"))
    assert bench.own("delete") not in names((await bench.client.listing(WIDGET)).items)
    async with refusal("NotFound"):
        await bench.client.delete(WIDGET, bench.own("delete"))


async def preconditions(bench: Bench) -> None:
    held = await bench.client.get(WIDGET, bench.own("preconditions"))
    for wrong in ({"uid": "another"}, {"resourceVersion": "1"}):
        async with refusal("Conflict"):
            await bench.client.delete(WIDGET, bench.own("preconditions"), preconditions=wrong)
    right = {name: held["metadata"][name] for name in ("uid", "resourceVersion")}
    await bench.client.delete(WIDGET, bench.own("preconditions"), preconditions=right)
    async with refusal("NotFound"):
        await bench.client.get(WIDGET, bench.own("preconditions"))


async def finalizers(bench: Bench) -> None:
    await bench.client.delete(WIDGET, bench.own("finalizers"))
    held = await bench.client.get(WIDGET, bench.own("finalizers"))
    assert held["metadata"]["deletionTimestamp"]
    await bench.client.patch(WIDGET, bench.own("finalizers"), {"metadata": {"finalizers": None}})
    async with refusal("NotFound"):
        await bench.client.get(WIDGET, bench.own("finalizers"))


async def delete_by_selector(bench: Bench) -> None:
    await bench.client.delete_all(SECRET, f"role={bench.own('swept')}")
    left = await bench.client.listing(SECRET, labels=f"role={bench.own('swept')}")
    assert left.items == []


async def can_i(bench: Bench) -> None:
    assert await bench.client.can_i("create", WIDGET)


async def token(bench: Bench) -> None:
    made = await bench.client.token(ACCOUNT)
    assert made.count(".") == 2, "a JWT"
    assert (await bench.client.get(SERVICE_ACCOUNT, ACCOUNT))["metadata"]["name"] == ACCOUNT
