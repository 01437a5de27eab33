"""Reads."""

from tests.conformance.checks.bench import Bench, names, refusal
from tests.conformance.contract import POD, WIDGET
from tests.conformance.seeds import NODE, WIDGETS

NAMES = [f"w{number}" for number in range(WIDGETS)]
SEEDED = "colour"
"""The label that only what nobody changes has."""


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
    async with refusal("NotFound", 'widgets.example.com "nobody" not found'):
        await bench.client.get(WIDGET, "nobody")
    async with refusal("NotFound", 'pods "nobody" not found'):
        await bench.client.get(POD, "nobody")


async def list_all(bench: Bench) -> None:
    found = await bench.client.listing(WIDGET, labels=SEEDED)
    assert names(found.items) == NAMES
    assert [item["spec"]["size"] for item in found.items] == [1, 2, 3, 4, 5]
    pods = await bench.client.listing(POD)
    assert {"p0", "p1", "p2"} <= set(names(pods.items))


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
        assert names(found.items) == expected, selector


async def field_selectors(bench: Bench) -> None:
    assert names((await bench.client.listing(WIDGET, fields="metadata.name=w3")).items) == ["w3"]
    on_node = await bench.client.listing(POD, fields=f"spec.nodeName={NODE}")
    assert {"p0", "p1", "p2"} <= set(names(on_node.items))
    assert names((await bench.client.listing(POD, fields="spec.nodeName=another")).items) == []
    await bench.client.patch(POD, "p2", {"status": {"phase": "Failed"}}, status=True)
    assert names((await bench.client.listing(POD, fields="status.phase=Failed")).items) == ["p2"]


async def bad_selector(bench: Bench) -> None:
    async with refusal("BadRequest", "unable to parse"):
        await bench.client.listing(WIDGET, labels="colour in red")


async def pages(bench: Bench) -> None:
    found = await bench.client.pages(WIDGET, 2)
    listed = [name for page in found for name in names(page.items)]
    assert [name for name in listed if name in NAMES] == NAMES
    assert len(listed) == len(set(listed))
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
