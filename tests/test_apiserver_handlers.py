"""The API as a client sees it, without the sockets: reads in every form, paging, consistency, refusals."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import ApiError, BadRequest, Expired, Invalid, MethodNotAllowed, NotFound, Timeout
from apiserver import handlers
from apiserver.discovery import About
from apiserver.handlers import Api, _read_token, _token
from apiserver.messages import Request, Response
from apiserver.storage import Storage
from apiserver.writes import PlannedWrites
from tests.test_apiserver_crds import crd

PATH = "/api/v1/namespaces/d/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


class Client:
    """Requests in short."""

    def __init__(self, api: Api, storage: Storage) -> None:
        self.api = api
        self.storage = storage

    async def ask(self, method: str, target: str, body: Any = None, **headers: str) -> Response:
        data = b"" if body is None else json.dumps(body).encode()
        media_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
        sent = {"content-type": media_type} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.api(Request(method, target, sent, data))

    async def __call__(self, method: str, target: str, body: Any = None, **headers: str) -> Any:
        response = await self.ask(method, target, body, **headers)
        assert isinstance(response.body, bytes)
        return json.loads(response.body)

    async def names(self, query: str = "") -> list[str]:
        return [item["metadata"]["name"] for item in (await self("GET", f"{PATH}?{query}"))["items"]]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with Storage.open(f"sqlite:///{tmp_path / 'a.db'}", window=64) as storage:
        made = Client(Api(storage, PlannedWrites(storage), about=About("test", "0")), storage)
        await made("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
        yield made


async def make(client: Client, *names: str) -> None:
    for name in names:
        await client("POST", PATH, {"metadata": {"name": name, "labels": {"name": name}}})


async def test_get_answers_the_object_its_metadata_or_a_table(client: Client) -> None:
    await make(client, "a")
    whole = await client("GET", f"{PATH}/a")
    assert (whole["kind"], whole["apiVersion"]) == ("ConfigMap", "v1")
    table = await client("GET", f"{PATH}/a", accept=TABLE)
    assert (table["kind"], table["rows"][0]["cells"][:2]) == ("Table", ["a", 0])
    partial = await client("GET", f"{PATH}/a", accept="application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")
    assert (partial["kind"], partial["metadata"]) == ("PartialObjectMetadata", whole["metadata"])


async def test_list_answers_objects_metadata_or_a_table_at_one_version(client: Client) -> None:
    await make(client, "b", "a")
    whole = await client("GET", PATH)
    assert (whole["kind"], whole["metadata"]) == ("ConfigMapList", {"resourceVersion": str(client.storage.revision)})
    table = await client("GET", PATH, accept=TABLE)
    assert [row["cells"][0] for row in table["rows"]] == ["a", "b"]
    partial = await client("GET", PATH, accept="application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")
    assert [item["metadata"] for item in partial["items"]] == [item["metadata"] for item in whole["items"]]


async def test_a_long_list_is_made_as_it_is_sent(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    await make(client, "a", "b", "c")
    whole = (await client.ask("GET", PATH)).body
    monkeypatch.setattr(handlers, "STREAMED_FROM", 2)
    monkeypatch.setattr(handlers, "STREAM_BYTES", 100)
    streamed = (await client.ask("GET", PATH)).body
    assert not isinstance(streamed, bytes)
    chunks = [chunk async for chunk in streamed]
    assert len(chunks) > 2
    assert b"".join(chunks) == whole


async def test_selectors(client: Client) -> None:
    await make(client, "a", "b", "c")
    assert await client.names("labelSelector=name%20in%20(a,c)") == ["a", "c"]
    assert await client.names("fieldSelector=metadata.name%3Db") == ["b"]
    with pytest.raises(BadRequest, match="field label not supported"):
        await client.names("fieldSelector=data.x%3Db")


async def test_pages_are_one_list_also_while_it_changes(client: Client) -> None:
    await make(client, "a", "b", "c", "d", "e")
    first = await client("GET", f"{PATH}?limit=2")
    await client("DELETE", f"{PATH}/c")
    await client("PATCH", f"{PATH}/d", {"data": {"x": "new"}})
    await make(client, "bb")
    second = await client("GET", f"{PATH}?limit=2&continue={first['metadata']['continue']}")
    third = await client("GET", f"{PATH}?limit=2&continue={second['metadata']['continue']}")
    pages = (first, second, third)
    assert [item["metadata"]["name"] for page in pages for item in page["items"]] == ["a", "b", "c", "d", "e"]
    assert {page["metadata"]["resourceVersion"] for page in pages} == {first["metadata"]["resourceVersion"]}
    assert "continue" not in third["metadata"]
    assert "data" not in second["items"][1]


async def test_a_page_whose_version_is_forgotten_is_expired(client: Client) -> None:
    await make(client, "a", "b", "c")
    first = await client("GET", f"{PATH}?limit=1")
    for number in range(70):
        await client("PATCH", f"{PATH}/c", {"data": {"x": str(number)}})
    with pytest.raises(Expired, match="continue parameter is too old"):
        await client("GET", f"{PATH}?limit=1&continue={first['metadata']['continue']}")


async def test_exactly_an_earlier_state_can_be_listed(client: Client) -> None:
    await make(client, "a", "b")
    then = client.storage.revision
    await client("DELETE", f"{PATH}/a")
    await make(client, "c")
    assert await client.names(f"resourceVersion={then}&resourceVersionMatch=Exact") == ["a", "b"]
    for query in (
        "resourceVersion=0",
        f"resourceVersion={then}",
        f"resourceVersion={then}&resourceVersionMatch=NotOlderThan",
    ):
        assert await client.names(query) == ["b", "c"]


async def test_a_version_from_the_future_is_to_be_waited_for(client: Client) -> None:
    with pytest.raises(Timeout) as caught:
        await client.names("resourceVersion=999")
    assert (caught.value.code, caught.value.causes[0].reason) == (504, "ResourceVersionTooLarge")


@pytest.mark.parametrize("token", ["x", "W10", "WzEsMiwzXQ", "%2F%2F%2F", "bnVsbA"])
async def test_a_made_up_token_is_refused(client: Client, token: str) -> None:
    with pytest.raises(BadRequest, match="continue key is not valid"):
        await client.names(f"continue={token}")


@given(st.integers(0, 2**60), st.text(), st.text())
def test_tokens_round_trip(revision: int, namespace: str, name: str) -> None:
    if not any(0xD800 <= ord(c) < 0xE000 for c in namespace + name):
        assert _read_token(_token(revision, (namespace, name))) == (revision, (namespace, name))


@given(st.text(max_size=40))
def test_any_token_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(BadRequest):
        _read_token(text)


@pytest.mark.parametrize(
    ("method", "target", "error"),
    [
        ("GET", f"{PATH}/missing", NotFound),
        ("GET", "/apis/nobody.example/v1/things", NotFound),
        ("GET", f"{PATH}/a/status", NotFound),
        ("GET", "/api/v1/namespaces/d/pods/a/log", NotFound),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", MethodNotAllowed),
        ("PUT", PATH, MethodNotAllowed),
    ],
)
async def test_refusals(client: Client, method: str, target: str, error: type[ApiError]) -> None:
    with pytest.raises(error):
        await client(method, target)


async def test_without_writes_the_api_says_that_it_is_read_only(client: Client) -> None:
    reader = Client(Api(client.storage, about=About("edge", "0")), client.storage)
    with pytest.raises(MethodNotAllowed, match="read-only"):
        await reader("POST", PATH, {})
    assert (await reader("GET", PATH))["items"] == []


async def test_a_definition_serves_at_once_and_judges(client: Client) -> None:
    body = crd()
    schema = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"watts": {"type": "integer"}}}},
    }
    body["spec"]["versions"][0] |= {"schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}
    made = await client("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    assert [condition["status"] for condition in made["status"]["conditions"]] == ["True", "True"]
    lamps = "/apis/example.com/v1/namespaces/d/lamps"
    with pytest.raises(Invalid) as caught:
        await client("POST", lamps, {"metadata": {"name": "l"}, "spec": {"watts": "5"}})
    assert caught.value.status()["details"] == {
        "name": "l",
        "group": "example.com",
        "kind": "Lamp",
        "causes": [
            {
                "reason": "FieldValueTypeInvalid",
                "message": 'Invalid value: "string": spec.watts in body must be of type integer: "string"',
                "field": "spec.watts",
            }
        ],
    }
    response = await client.ask("POST", lamps, {"metadata": {"name": "l"}, "spec": {"watts": 5, "hue": 'a"ü'}})
    assert response.status == 201
    assert [value for name, value in response.headers if name == "warning"] == ['299 - "unknown field \\"spec.hue\\""']
    status = await client("PATCH", f"{lamps}/l/status", {"status": {"on": True}, "spec": {"watts": 9}})
    assert (status["spec"], status.get("status")) == ({"watts": 5}, None)  # the schema knows no status: pruned


async def test_a_created_object_can_be_answered_as_a_table(client: Client) -> None:
    made = await client("POST", PATH, {"metadata": {"name": "a"}}, accept=TABLE)
    assert made["kind"] == "Table"
    gone = await client("DELETE", f"{PATH}/a", accept=TABLE)
    assert gone["kind"] == "Status"


async def test_discovery_answers_here_too(client: Client) -> None:
    assert (await client("GET", "/version"))["gitVersion"].endswith("+test-0")
    assert (await client.ask("GET", "/healthz")).body == b"ok"
