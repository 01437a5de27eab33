"""
What is promised, one function per feature, each against any client at any place.

A check fails by AssertionError, or by the Refused that it did not expect.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from tests.conformance.contract import (
    CONFIG_MAP,
    EVENT,
    LEASE,
    POD,
    SECRET,
    SERVICE_ACCOUNT,
    WIDGET,
    Body,
    Client,
    Event,
    Kind,
    Refused,
)
from tests.conformance.matrix import KUBECTL_OLD
from tests.conformance.seeds import ACCOUNT, FINALIZER, HOLDER, NODE, RENEWALS, WIDGETS

AT_ONCE_S = 3.0  # until a refusal: a client is started, says no more than one thing, and this machine is busy
NAMES = [f"w{number}" for number in range(WIDGETS)]
SEEDED = "colour"
"""The label that only what nobody changes has."""


@dataclass(frozen=True)
class Bench:
    """One client at one place."""

    client: Client
    name: str
    """The client's."""
    place: str
    namespace: str

    def own(self, check: str) -> str:
        """The name of what this check may change here; see tests.conformance.seeds."""
        return f"{check}-{self.place}"


Check = Callable[[Bench], Awaitable[None]]


async def refused_for_want_of_the_cloud(check: Check, bench: Bench) -> None:
    """That what the check does first is refused, at once, and the client's user reads why."""
    began = time.monotonic()
    try:
        await check(bench)
    except Refused as exc:
        assert exc.reason == "ServiceUnavailable", exc
        assert "not connected to the cloud" in exc.message, exc
    else:
        raise AssertionError("it was done, without the cloud")
    assert time.monotonic() - began < AT_ONCE_S


@contextlib.asynccontextmanager
async def _refusal(reason: str, *words: str) -> AsyncGenerator[None, None]:
    """That the block is refused for this; where it is refused for want of the cloud, that goes through."""
    try:
        yield
    except Refused as exc:
        if exc.reason == "ServiceUnavailable":
            raise
        assert exc.reason == reason, exc
        for word in words:
            assert word in exc.message, exc
    else:
        raise AssertionError(f"not refused, and should be: {reason}")


def _names(items: list[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


# Reads


async def get(bench: Bench) -> None:
    found = await bench.client.get(WIDGET, "w2")
    assert (found["kind"], found["apiVersion"]) == ("Widget", "example.com/v1")
    assert found["spec"] == {"size": 3}
    assert found["metadata"]["namespace"] == bench.namespace
    assert found["metadata"]["uid"]
    assert int(found["metadata"]["resourceVersion"]) > 0
    pod = await bench.client.get(POD, "p0")
    assert pod["spec"]["nodeName"] == NODE


async def get_missing(bench: Bench) -> None:
    async with _refusal("NotFound", 'widgets.example.com "nobody" not found'):
        await bench.client.get(WIDGET, "nobody")
    async with _refusal("NotFound", 'pods "nobody" not found'):
        await bench.client.get(POD, "nobody")


async def list_all(bench: Bench) -> None:
    found = await bench.client.listing(WIDGET, labels=SEEDED)
    assert _names(found.items) == NAMES
    assert [item["spec"]["size"] for item in found.items] == [1, 2, 3, 4, 5]
    pods = await bench.client.listing(POD)
    assert {"p0", "p1", "p2"} <= set(_names(pods.items))


async def list_everywhere(bench: Bench) -> None:
    found = await bench.client.listing(WIDGET, labels=SEEDED, everywhere=True)
    by_namespace: dict[str, list[str]] = {}
    for item in found.items:
        by_namespace.setdefault(item["metadata"]["namespace"], []).append(item["metadata"]["name"])
    assert by_namespace[bench.namespace] == NAMES
    assert len(by_namespace) > 1, "the other clients' too"


async def label_selectors(bench: Bench) -> None:
    for selector, expected in (
        ("colour=red", ["w0", "w3"]),
        ("colour!=red,colour", ["w1", "w2", "w4"]),
        ("colour in (blue,green)", ["w1", "w2", "w4"]),
        ("colour notin (blue,green),colour", ["w0", "w3"]),
        ("colour=pink", []),
    ):
        found = await bench.client.listing(WIDGET, labels=selector)
        assert _names(found.items) == expected, selector


async def field_selectors(bench: Bench) -> None:
    assert _names((await bench.client.listing(WIDGET, fields="metadata.name=w3")).items) == ["w3"]
    on_node = await bench.client.listing(POD, fields=f"spec.nodeName={NODE}")
    assert {"p0", "p1", "p2"} <= set(_names(on_node.items))
    assert _names((await bench.client.listing(POD, fields="spec.nodeName=another")).items) == []
    await bench.client.patch(POD, "p2", {"status": {"phase": "Failed"}}, status=True)
    assert _names((await bench.client.listing(POD, fields="status.phase=Failed")).items) == ["p2"]


async def bad_selector(bench: Bench) -> None:
    async with _refusal("BadRequest", "unable to parse"):
        await bench.client.listing(WIDGET, labels="colour in red")


async def pages(bench: Bench) -> None:
    found = await bench.client.pages(WIDGET, 2)
    names = [name for page in found for name in _names(page.items)]
    assert [name for name in names if name in NAMES] == NAMES
    assert len(names) == len(set(names))
    if len(found) > 1:
        assert [len(page.items) for page in found[:-1]] == [2] * (len(found) - 1)


async def consistent_version(bench: Bench) -> None:
    whole = await bench.client.listing(WIDGET)
    assert all(int(item["metadata"]["resourceVersion"]) <= int(whole.version) for item in whole.items)
    found = await bench.client.pages(WIDGET, 2)
    assert len(found) > 1
    assert int(found[0].version) >= int(whole.version)
    assert len({page.version for page in found}) == 1


async def table(bench: Bench) -> None:
    columns, rows = await bench.client.table(WIDGET)
    assert [column.casefold() for column in columns[:2]] == ["name", "size"]
    assert {row[0]: row[1] for row in rows if row[0] in NAMES} == {name: str(n + 1) for n, name in enumerate(NAMES)}


async def partial_metadata(bench: Bench) -> None:
    items = await bench.client.metadata(WIDGET)
    found = {item["metadata"]["name"]: item for item in items}
    assert set(NAMES) <= set(found)
    assert found["w0"]["kind"] == "PartialObjectMetadata"
    assert found["w0"]["metadata"]["labels"] == {"colour": "red"}
    assert "spec" not in found["w0"]


async def discovery(bench: Bench) -> None:
    kinds = await bench.client.kinds()
    assert {"pods", "configmaps", "widgets.example.com", "leases.coordination.k8s.io"} <= kinds


async def openapi(bench: Bench) -> None:
    for path in ("/openapi/v2", "/openapi/v3/apis/example.com/v1"):
        document = await bench.client.raw(path)
        schemas = document["definitions"] if path.endswith("v2") else document["components"]["schemas"]
        [widget] = [
            schema
            for schema in schemas.values()
            if {"group": "example.com", "version": "v1", "kind": "Widget"}
            in schema.get("x-kubernetes-group-version-kind", [])
        ]
        assert widget["properties"]["spec"]["properties"]["size"]["type"] == "integer", path
    paths = await bench.client.raw("/openapi/v3")
    assert {"apis/example.com/v1", "api/v1"} <= set(paths["paths"])


async def version(bench: Bench) -> None:
    assert (await bench.client.version()).startswith("v1.")


# Watches


async def _say(bench: Bench, pod: str, message: str) -> None:
    """A change that a node may make at any time."""
    await bench.client.patch(POD, pod, {"status": {"message": f"{message} {bench.place}"}}, status=True)


@contextlib.asynccontextmanager
async def _watching(bench: Bench, version: str = "", **options: Any) -> AsyncGenerator[AsyncGenerator[Event, None]]:
    async with contextlib.aclosing(
        cast("AsyncGenerator[Event, None]", bench.client.watch(POD, version, **options))
    ) as events:
        yield events


async def _until(bench: Bench, events: AsyncGenerator[Event, None], message: str) -> tuple[Event, list[Event]]:
    """The event in which the pod says so, and those before."""
    before: list[Event] = []
    async for event in events:
        if event.object.get("status", {}).get("message") == f"{message} {bench.place}":
            return event, before
        before.append(event)
    raise AssertionError(f"the watch ended before {message!r}: {before}")


async def watch(bench: Bench) -> None:
    expected = {"p0", "p1", "p2"}
    async with _watching(bench) as events:
        seen: set[str] = set()
        async for event in events:
            assert event.type == "ADDED"
            seen.add(event.name)
            if expected <= seen:
                break
        await _say(bench, "p0", "watch 1")
        event, before = await _until(bench, events, "watch 1")
        assert (event.type, event.name, before) == ("MODIFIED", "p0", [])
        await _say(bench, "p1", "watch 2")
        event, before = await _until(bench, events, "watch 2")
        assert (event.type, event.name, before) == ("MODIFIED", "p1", [])


async def watch_from_list(bench: Bench) -> None:
    listed = await bench.client.listing(POD)
    await _say(bench, "p0", "from list 1")
    async with _watching(bench, listed.version) as events:
        event, before = await _until(bench, events, "from list 1")
        assert (event.type, before) == ("MODIFIED", []), "nothing of the state comes again"
        await _say(bench, "p0", "from list 2")
        event, before = await _until(bench, events, "from list 2")
        assert before == []


async def resume(bench: Bench) -> None:
    listed = await bench.client.listing(POD)
    for number in range(3):
        await _say(bench, "p1", f"resume {number}")
    async with _watching(bench, listed.version) as events:
        first, _ = await _until(bench, events, "resume 0")
    async with _watching(bench, first.version) as events:
        second, before = await _until(bench, events, "resume 1")
        assert before == [], "no event comes again"
        last, before = await _until(bench, events, "resume 2")
        assert before == [], "none is missing"
    assert int(first.version) < int(second.version) < int(last.version)


async def bookmarks(bench: Bench) -> None:
    listed = await bench.client.listing(POD)
    async with _watching(bench, listed.version, timeout_s=1, bookmarks=True) as events:
        found = [event async for event in events]
    assert [event.type for event in found] == ["BOOKMARK"]
    assert int(found[0].version) >= int(listed.version)
    await _say(bench, "p0", "after the bookmark")
    async with _watching(bench, found[0].version) as events:
        _, before = await _until(bench, events, "after the bookmark")
        assert before == []


async def send_initial_events(bench: Bench) -> None:
    async with _watching(bench, timeout_s=1, bookmarks=True, initial=True) as events:
        found = [event async for event in events]
    state = [event.name for event in found if event.type == "ADDED"]
    assert {"p0", "p1", "p2"} <= set(state)
    mark = found[len(state)]
    assert mark.type == "BOOKMARK"
    assert mark.object["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def watch_ends(bench: Bench) -> None:
    listed = await bench.client.listing(POD)
    began = time.monotonic()
    async with _watching(bench, listed.version, timeout_s=1) as events:
        assert [event async for event in events] == []
    assert time.monotonic() - began >= 0.9


async def gone(bench: Bench) -> None:
    async with _refusal("Expired", "too old resource version"), _watching(bench, "1", timeout_s=5) as events:
        async for event in events:
            raise AssertionError(f"version 1 is known: {event}")


async def informer(bench: Bench) -> None:
    informed = await bench.client.informed(POD)
    try:
        await _eventually(lambda: {"p0", "p1", "p2"} <= informed.names())
        await _say(bench, "p0", "informer 1")
        await _eventually(lambda: ("MODIFIED", "p0") in informed.seen())
        await _say(bench, "p1", "informer 2")
        await _eventually(lambda: ("MODIFIED", "p1") in informed.seen())
        assert sum(event == ("ADDED", "p0") for event in informed.seen()) == 1
        assert not [event for event in informed.seen() if event[0] == "ERROR"]
    finally:
        informed.stop()


async def _eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.02)


async def wait(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.client.wait(POD, "p1", "Ready"), name="waiting")
    conditions = [{"type": "Ready", "status": "True"}]
    await bench.client.patch(POD, "p1", {"status": {"conditions": conditions}}, status=True)
    async with asyncio.timeout(15):
        await waiting


# Writes


async def create(bench: Bench) -> None:
    made = await bench.client.create(WIDGET, WIDGET.body("created", spec={"size": 7}))
    assert made["spec"] == {"size": 7}
    assert (await bench.client.get(WIDGET, "created"))["metadata"]["uid"] == made["metadata"]["uid"]
    assert "created" in _names((await bench.client.listing(WIDGET)).items)
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
    async with _refusal("AlreadyExists", 'widgets.example.com "w0" already exists'):
        await bench.client.create(WIDGET, WIDGET.body("w0", spec={"size": 1}))


async def create_invalid(bench: Bench) -> None:
    async with _refusal("Invalid", "spec.size"):
        await bench.client.create(WIDGET, WIDGET.body("invalid", spec={"size": 0}))


async def strict(bench: Bench) -> None:
    async with _refusal("BadRequest", 'unknown field "spec.colour"'):
        await bench.client.create_strictly(WIDGET, WIDGET.body("strict", spec={"size": 1, "colour": "red"}))
    async with _refusal("NotFound"):
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
    async with _refusal("NotFound"):
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
    async with _refusal("Conflict", "the object has been modified"):
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
    async with _refusal("Conflict", "one", ".spec.size"):
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
    async with _refusal("NotFound"):
        await bench.client.get(WIDGET, bench.own("delete"))
    assert bench.own("delete") not in _names((await bench.client.listing(WIDGET)).items)
    async with _refusal("NotFound"):
        await bench.client.delete(WIDGET, bench.own("delete"))


async def preconditions(bench: Bench) -> None:
    held = await bench.client.get(WIDGET, bench.own("preconditions"))
    for wrong in ({"uid": "another"}, {"resourceVersion": "1"}):
        async with _refusal("Conflict"):
            await bench.client.delete(WIDGET, bench.own("preconditions"), preconditions=wrong)
    right = {name: held["metadata"][name] for name in ("uid", "resourceVersion")}
    await bench.client.delete(WIDGET, bench.own("preconditions"), preconditions=right)
    async with _refusal("NotFound"):
        await bench.client.get(WIDGET, bench.own("preconditions"))


async def finalizers(bench: Bench) -> None:
    await bench.client.delete(WIDGET, bench.own("finalizers"))
    held = await bench.client.get(WIDGET, bench.own("finalizers"))
    assert held["metadata"]["deletionTimestamp"]
    await bench.client.patch(WIDGET, bench.own("finalizers"), {"metadata": {"finalizers": None}})
    async with _refusal("NotFound"):
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


# What is the node's own to say


async def pod_status(bench: Bench) -> None:
    found = await bench.client.patch(POD, "p0", {"status": {"phase": "Running", "podIP": "10.0.0.1"}}, status=True)
    assert (found["status"]["phase"], found["status"]["podIP"]) == ("Running", "10.0.0.1")
    held = await bench.client.get(POD, "p0")
    assert (held["status"]["phase"], held["spec"]["nodeName"]) == ("Running", NODE)
    assert held["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]


async def renew_lease(bench: Bench) -> None:
    lease = await bench.client.get(LEASE, "held")
    lease["spec"]["renewTime"] = "2026-01-01T00:00:00.500000Z"
    renewed = await bench.client.replace(LEASE, lease)
    stale = {**lease, "spec": {**lease["spec"], "renewTime": "2026-01-01T00:00:09.500000Z"}}
    async with _refusal("Conflict"):
        await bench.client.replace(LEASE, stale)
    renewed["spec"]["renewTime"] = "2026-01-01T00:00:01.500000Z"
    await bench.client.replace(LEASE, renewed)
    assert (await bench.client.get(LEASE, "held"))["spec"]["renewTime"] == "2026-01-01T00:00:01.500000Z"


async def leader_election(bench: Bench) -> None:
    renewals = await bench.client.lead("held")
    assert len(renewals) >= RENEWALS
    assert renewals == sorted(renewals)
    lease = await bench.client.get(LEASE, "held")
    assert (lease["spec"]["holderIdentity"], lease["spec"]["renewTime"]) == (HOLDER, renewals[-1])


async def event(bench: Bench) -> None:
    about = {"apiVersion": "v1", "kind": "Pod", "namespace": bench.namespace, "name": "p0"}
    rest = {"involvedObject": about, "reason": "Tested", "message": "by a client", "type": "Normal"}
    name = f"p0.{bench.place}"
    await bench.client.create(EVENT, EVENT.body(name, metadata={"namespace": bench.namespace}, **rest))
    assert (await bench.client.get(EVENT, name))["reason"] == "Tested"
    found = await bench.client.listing(EVENT, fields="involvedObject.name=p0,reason=Tested")
    assert name in _names(found.items)


# kubectl's own commands


async def kubectl_get_watch(bench: Bench) -> None:
    lines = cast("AsyncGenerator[str, None]", bench.client.lines("get", "pods", "p0", "-w"))
    async with contextlib.aclosing(lines):
        assert (await anext(lines)).split()[:3] == ["NAME", "READY", "STATUS"]
        assert (await anext(lines)).split()[0] == "p0"
        await bench.client.patch(POD, "p0", {"status": {"reason": f"Seen-{bench.place}"}}, status=True)
        async for line in lines:
            assert line.split()[0] == "p0"
            if f"Seen-{bench.place}" in line:
                return


async def kubectl_explain(bench: Bench) -> None:
    assert "How large the widget is." in await bench.client.kubectl("explain", "widgets.spec.size")
    assert "containers" in await bench.client.kubectl("explain", "pods.spec")


async def kubectl_describe(bench: Bench) -> None:
    described = await bench.client.kubectl("describe", "widget", "w1")
    assert "Size:  2" in described
    assert "colour=blue" in described
    assert NODE in await bench.client.kubectl("describe", "pod", "p2")


def _manifest(*objects: Body) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


async def _applied_three_ways(bench: Bench, kind: Kind, field: str, before: Body, after: Body) -> None:
    """Applied, changed by somebody else, applied without a field: that goes, and what is another's stays."""
    kubectl, what = bench.client.kubectl, f"{kind.kind.lower()}.*/three-way"
    text = _manifest(kind.body("three-way", **{field: before}))
    assert re.search(f"{what} created", await kubectl("apply", "-f", "-", stdin=text))
    await bench.client.patch(kind, "three-way", {"metadata": {"labels": {"by": "another"}}})
    text = _manifest(kind.body("three-way", **{field: after}))
    assert re.search(f"{what} configured", await kubectl("apply", "-f", "-", stdin=text))
    held = await bench.client.get(kind, "three-way")
    assert (held[field], held["metadata"]["labels"]) == (after, {"by": "another"})
    assert re.search(f"{what} unchanged", await kubectl("apply", "-f", "-", stdin=text))


async def kubectl_apply(bench: Bench) -> None:
    await _applied_three_ways(bench, WIDGET, "spec", {"size": 1, "parts": ["a"]}, {"size": 2})


async def kubectl_apply_configmap(bench: Bench) -> None:
    await _applied_three_ways(bench, CONFIG_MAP, "data", {"a": "1", "b": "1"}, {"a": "2"})


async def kubectl_prune(bench: Bench) -> None:
    kubectl = bench.client.kubectl
    kept, dropped = (
        WIDGET.body(name, metadata={"labels": {"app": "pruned"}}, spec={"size": 1}) for name in ("kept", "dropped")
    )
    await kubectl("apply", "-f", "-", stdin=_manifest(kept, dropped))
    option = "--prune-whitelist" if bench.name == KUBECTL_OLD else "--prune-allowlist"
    only = f"{option}={WIDGET.api_version}/{WIDGET.kind}"
    said = await kubectl("apply", "--prune", "-l", "app=pruned", only, "-f", "-", stdin=_manifest(kept))
    assert "widget.example.com/dropped pruned" in said
    found = await bench.client.listing(WIDGET, labels="app=pruned")
    assert _names(found.items) == ["kept"]


async def kubectl_diff(bench: Bench) -> None:
    changed = WIDGET.body("w1", metadata={"labels": {"colour": "black"}}, spec={"size": 2})
    said = await bench.client.kubectl("diff", "-f", "-", stdin=_manifest(changed))
    changes = [line.split() for line in said.splitlines() if line[:1] in ("+", "-") and " colour: " in line]
    assert changes == [["-", "colour:", "blue"], ["+", "colour:", "black"]], said


async def kubectl_scale(bench: Bench) -> None:
    name = bench.own("scale")
    assert f"widget.example.com/{name} scaled" in await bench.client.kubectl("scale", "widget", name, "--replicas=3")
    assert (await bench.client.get(WIDGET, name))["spec"]["replicas"] == 3


async def kubectl_wait_for_deletion(bench: Bench) -> None:
    kubectl = bench.client.kubectl
    held = CONFIG_MAP.body("brief", metadata={"finalizers": [FINALIZER]})
    await kubectl("create", "-f", "-", stdin=_manifest(held))
    await kubectl("delete", "configmap", "brief", "--wait=false")
    # A log of its requests tells when it waits.
    lines = bench.client.lines("wait", "--for=delete", "configmap/brief", "--timeout=20s", "-v=6")
    said = ""
    async for line in lines:
        said += line
        if "GET" in line and "watch=true" in line:
            await bench.client.patch(CONFIG_MAP, "brief", {"metadata": {"finalizers": None}})
    assert "configmap/brief condition met" in said, said
    async with _refusal("NotFound"):
        await bench.client.get(CONFIG_MAP, "brief")
