"""kubectl's own commands."""

import contextlib
import json
import re
from collections.abc import AsyncGenerator
from typing import cast

from tests.conformance.checks.bench import Bench, names, refusal
from tests.conformance.contract import CONFIG_MAP, POD, WIDGET, Body, Kind
from tests.conformance.matrix import KUBECTL_OLD
from tests.conformance.seeds import FINALIZER, NODE


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
    assert names(found.items) == ["kept"]


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
    async with refusal("NotFound"):
        await bench.client.get(CONFIG_MAP, "brief")
