"""Writes over HTTP: bodies, media types, dry runs, reviews, deletion options."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apimachinery.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Invalid,
    MethodNotAllowed,
    NotFound,
    UnsupportedMediaType,
)
from apiserver.largebodies import LARGE_BYTES
from apiserver.messages import Request
from apiserver.protocols import Answer
from apiserver.requests import parse
from apiserver.storage import Storage
from apiserver.writes import PlannedWrites, decode, facts
from tests.test_apiserver_crds import crd

PATH = "/api/v1/namespaces/d/configmaps"


class Writer:
    """Requests in short, against a real storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._writes = PlannedWrites(storage)

    async def ask(self, method: str, target: str, body: Any = None, media_type: str = "application/json") -> Answer:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        http = Request(method, target, {"content-type": media_type}, data)
        return await self._writes.write(parse(method, target, self.storage.catalogue().resolve), http)

    async def __call__(self, method: str, target: str, body: Any = None, media_type: str = "application/json") -> Any:
        return json.loads((await self.ask(method, target, body, media_type)).body)


@pytest.fixture
async def write(tmp_path: Path) -> AsyncIterator[Writer]:
    async with Storage.open(f"sqlite:///{tmp_path / 'a.db'}") as storage:
        writer = Writer(storage)
        await writer("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
        yield writer


async def test_an_object_lives_through_all_verbs(write: Writer) -> None:
    made = await write("POST", PATH, {"metadata": {"name": "a"}, "data": {"x": "1"}})
    assert made["metadata"]["resourceVersion"] == str(write.storage.revision)
    put = await write("PUT", f"{PATH}/a", made | {"data": {"x": "2"}})
    assert put["data"] == {"x": "2"}
    patched = await write("PATCH", f"{PATH}/a", {"data": {"y": "3"}}, "application/strategic-merge-patch+json")
    assert patched["data"] == {"x": "2", "y": "3"}
    deleted = await write("DELETE", f"{PATH}/a", {"kind": "DeleteOptions", "propagationPolicy": "Background"})
    assert deleted["status"] == "Success"
    with pytest.raises(NotFound):
        await write("DELETE", f"{PATH}/a")


async def test_names_can_be_generated(write: Writer) -> None:
    names = {(await write("POST", PATH, {"metadata": {"generateName": "x-"}}))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", f"{PATH}?dryRun=All", {"metadata": {"name": "new"}}),
        ("PATCH", f"{PATH}/a?dryRun=All", {"data": {"x": "9"}}),
        ("DELETE", f"{PATH}/a?dryRun=All", None),
        ("DELETE", f"{PATH}/a", {"dryRun": ["All"]}),
        ("DELETE", f"{PATH}?dryRun=All", None),
    ],
)
async def test_a_dry_run_answers_and_changes_nothing(write: Writer, method: str, target: str, body: Any) -> None:
    await write("POST", PATH, {"metadata": {"name": "a"}})
    revision = write.storage.revision
    answer = await write(
        method, target, body, "application/merge-patch+json" if method == "PATCH" else "application/json"
    )
    assert answer["kind"] in ("ConfigMap", "Status")
    assert write.storage.revision == revision


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"propagationPolicy": "Sideways"}, 'Unsupported value: "Sideways": supported values: "Foreground"'),
        ({"propagationPolicy": "Orphan", "orphanDependents": True}, "cannot be both set"),
        ({"dryRun": ["Some"]}, r'dryRun: Unsupported value: \["Some"\]: supported values: "All"'),
    ],
)
async def test_deletion_options_that_contradict_are_refused(write: Writer, body: Any, words: str) -> None:
    await write("POST", PATH, {"metadata": {"name": "a"}})
    with pytest.raises(Invalid, match=f'DeleteOptions.meta.k8s.io "" is invalid: .*{words}'):
        await write("DELETE", f"{PATH}/a", body)
    assert await write("DELETE", f"{PATH}/a", {"orphanDependents": True})


async def test_a_collection_is_deleted_by_selector(write: Writer) -> None:
    for name, colour in (("a", "red"), ("b", "blue"), ("c", "red")):
        await write("POST", PATH, {"metadata": {"name": name, "labels": {"colour": colour}}})
    await write("DELETE", f"{PATH}?labelSelector=colour%3Dred")
    left = [change.object.key.name for change in write.storage.since(1) if change.type == "ADDED"]
    gone = [change.object.key.name for change in write.storage.since(1) if change.type == "DELETED"]
    assert (left, gone) == (["a", "b", "c"], ["a", "c"])


async def test_who_names_a_version_must_name_the_present_one(write: Writer) -> None:
    made = await write("POST", PATH, {"metadata": {"name": "a"}})
    version = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    patch = "application/merge-patch+json"
    await write("PATCH", f"{PATH}/a", version | {"data": {"x": "1"}}, patch)
    with pytest.raises(ApiError, match="has been modified"):
        await write("PATCH", f"{PATH}/a", version | {"data": {"x": "2"}}, patch)


async def test_of_racing_writers_none_is_lost(write: Writer) -> None:
    await write("POST", PATH, {"metadata": {"name": "a"}})
    async with asyncio.TaskGroup() as group:
        for number in range(30):
            patch = write("PATCH", f"{PATH}/a", {"data": {f"k{number}": "x"}}, "application/merge-patch+json")
            group.create_task(patch, name=f"writer-{number}")
    final = await write("PATCH", f"{PATH}/a", {}, "application/merge-patch+json")
    assert len(final["data"]) == 30


@pytest.mark.parametrize(
    ("method", "target", "body", "media_type", "error"),
    [
        ("POST", PATH, b"<a/>", "application/xml", UnsupportedMediaType),
        ("POST", PATH, b"", "application/json", BadRequest),
        ("POST", PATH, b"[]", "application/json", BadRequest),
        ("POST", PATH, b'{"a":NaN}', "application/json", BadRequest),
        ("POST", PATH, b"[" * 100_000, "application/json", BadRequest),
        ("POST", PATH, b'{"metadata":{"name":"a"},"data":{"x":"\\ud800"}}', "application/json", BadRequest),
        ("PATCH", f"{PATH}/a", b"{}", "application/json", UnsupportedMediaType),
        ("DELETE", f"{PATH}/a", b"rubbish", "application/json", BadRequest),
        ("POST", f"{PATH}/a/token", b"{}", "application/json", NotFound),
        ("DELETE", "/api/v1/namespaces/d/pods/a/status", None, "application/json", MethodNotAllowed),
    ],
)
async def test_refusals(
    write: Writer, method: str, target: str, body: Any, media_type: str, error: type[ApiError]
) -> None:
    await write("POST", PATH, {"metadata": {"name": "a"}})
    with pytest.raises(error):
        await write(method, target, body, media_type)


YAML, APPLY = "application/yaml", "application/apply-patch+yaml"


@pytest.mark.parametrize("dry_run", ["", "?dryRun=All"])
@pytest.mark.parametrize(
    "value", ["1e999", "NaN", r'"\ud800"', r'"%s\ud800"' % ("x" * 70_000)], ids=lambda value: value[-9:]
)
async def test_what_json_cannot_say_is_refused(write: Writer, value: str, dry_run: str) -> None:
    await write("POST", PATH, {"metadata": {"name": "a"}})
    revision = write.storage.revision
    for kind in ("merge-patch+json", "strategic-merge-patch+json"):
        with pytest.raises(BadRequest, match="cannot be written as JSON"):
            await write("PATCH", f"{PATH}/a{dry_run}", f'{{"data":{{"x":{value}}}}}'.encode(), f"application/{kind}")
    finalizers = f'{{"metadata":{{"finalizers":["a/b"],"labels":{{"x":"y"}}}},"data":{{"x":[{value}]}}}}'.encode()
    with pytest.raises(BadRequest, match="cannot be written as JSON"):
        await write("PATCH", f"{PATH}/a{dry_run}", finalizers, "application/merge-patch+json")
    assert write.storage.revision == revision


async def test_bodies_may_be_yaml(write: Writer) -> None:
    made = await write("POST", PATH, b"metadata: {name: a}\ndata:\n  x: |\n    two\n    lines\n", YAML)
    assert made["data"] == {"x": "two\nlines\n"}
    put = await write("PUT", f"{PATH}/a", b"metadata:\n  name: a\ndata: {x: 'on'}\n", f"{YAML}; charset=utf-8")
    assert put["data"] == {"x": "on"}
    await write("DELETE", f"{PATH}/a", b"propagationPolicy: Background\n", YAML)
    with pytest.raises(BadRequest, match="error decoding YAML"):
        await write("POST", PATH, b"a: [", YAML)
    with pytest.raises(BadRequest, match="must be an object"):
        await write("POST", PATH, b"- a\n", YAML)


async def test_a_key_repeated_in_yaml_is_warned_of_and_refused_when_strict(write: Writer) -> None:
    body = b"metadata: {name: a}\ndata: {}\ndata: {}\n"
    answer = await write.ask("POST", PATH, body, YAML)
    assert answer.warnings == ('line 3: key "data" already set in map',)
    with pytest.raises(BadRequest, match="strict decoding error: line 3"):
        await write.ask("POST", f"{PATH}?fieldValidation=Strict", body, YAML)
    with pytest.raises(BadRequest, match="error strict decoding YAML: line 3"):
        await write.ask("PATCH", f"{PATH}/a?fieldManager=m&fieldValidation=Strict", body, APPLY)


def config(**data: str) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}).encode()


async def test_an_apply_makes_and_then_changes(write: Writer) -> None:
    answer = await write.ask(
        "PATCH", f"{PATH}/a?fieldManager=m", b"kind: ConfigMap\napiVersion: v1\ndata: {x: '1'}\n", APPLY
    )
    assert answer.status == 201
    made = json.loads(answer.body)
    assert made["metadata"]["managedFields"][0]["fieldsV1"] == {"f:data": {"f:x": {}}}
    answer = await write.ask("PATCH", f"{PATH}/a?fieldManager=m", config(y="2"), APPLY)
    assert (answer.status, json.loads(answer.body)["data"]) == (200, {"y": "2"})
    revision = write.storage.revision
    await write("PATCH", f"{PATH}/a?fieldManager=m", config(y="2"), APPLY)
    assert write.storage.revision == revision
    with pytest.raises(Conflict, match=r'conflict with "m": \.data\.y'):
        await write("PATCH", f"{PATH}/a?fieldManager=n", config(y="3"), APPLY)
    forced = await write("PATCH", f"{PATH}/a?fieldManager=n&force=true", config(y="3"), APPLY)
    assert [entry["manager"] for entry in forced["metadata"]["managedFields"]] == ["n"]


async def test_an_apply_can_be_rehearsed_and_names_a_version(write: Writer) -> None:
    made = await write("PATCH", f"{PATH}/a?fieldManager=m&dryRun=All", config(x="1"), APPLY)
    assert made["data"] == {"x": "1"}
    with pytest.raises(NotFound):
        await write("DELETE", f"{PATH}/a")
    await write("PATCH", f"{PATH}/a?fieldManager=m", config(x="1"), APPLY)
    old = {"metadata": {"name": "a", "resourceVersion": "1"}, "data": {"x": "2"}}
    with pytest.raises(Conflict, match="has been modified"):
        await write("PATCH", f"{PATH}/a?fieldManager=m", old, APPLY)
    other = {"metadata": {"name": "b", "uid": "u"}, "data": {"x": "2"}}
    with pytest.raises(Conflict, match="uid mismatch: the provided object specified uid u, and no existing object"):
        await write("PATCH", f"{PATH}/b?fieldManager=m", other, APPLY)


@pytest.mark.parametrize(
    ("target", "media_type", "error", "words"),
    [
        (f"{PATH}/a", APPLY, Invalid, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is'),
        (f"{PATH}/a?force=true", "application/merge-patch+json", Invalid, "force: Forbidden: may not be specified"),
        (f"{PATH}/a?fieldManager={'m' * 129}", APPLY, Invalid, "fieldManager: Too long: may not be more than 128"),
        (f"{PATH}/a?fieldManager=m%07", APPLY, Invalid, "should only contain printable characters"),
        ("/api/v1/namespaces/none/configmaps/a?fieldManager=m", APPLY, NotFound, 'namespaces "none" not found'),
        ("/api/v1/namespaces/d/pods/a/status?fieldManager=m", APPLY, NotFound, 'pods "a" not found'),
        (f"{PATH}/other?fieldManager=m", APPLY, BadRequest, "does not match the name on the URL"),
    ],
)  # fmt: skip
async def test_what_is_asked_for_wrongly_is_refused_in_a_servers_words(
    write: Writer, target: str, media_type: str, error: type[ApiError], words: str
) -> None:
    body = {"metadata": {"name": "a"}}
    with pytest.raises(error, match=words):
        await write("PATCH", target, body, media_type)


async def test_a_field_manager_is_the_program_where_none_is_named(write: Writer) -> None:
    http = Request("POST", PATH, {"user-agent": "robot/1.2 (x)"}, config(x="1"))
    answer = await PlannedWrites(write.storage).write(parse("POST", PATH, write.storage.catalogue().resolve), http)
    (entry,) = json.loads(answer.body)["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("robot", "Update")


async def test_a_scale_is_read_back_as_it_was_written(write: Writer) -> None:
    path = "/apis/apps/v1/namespaces/d/deployments"
    await write("POST", path, {"metadata": {"name": "a"}, "spec": {"replicas": 1}})
    scale = await write("PATCH", f"{path}/a/scale", {"spec": {"replicas": 4}}, "application/merge-patch+json")
    assert (scale["kind"], scale["spec"], scale["metadata"]["resourceVersion"]) == (
        "Scale", {"replicas": 4}, str(write.storage.revision),
    )  # fmt: skip
    with pytest.raises(Conflict):
        await write("PUT", f"{path}/a/scale", scale | {"metadata": {"resourceVersion": "1"}})
    with pytest.raises(UnsupportedMediaType, match="patch it with"):
        await write("PATCH", f"{path}/a/scale?fieldManager=m", scale, APPLY)


async def test_a_secrets_text_is_seen_as_a_change_of_its_data(write: Writer) -> None:
    path = "/api/v1/namespaces/d/secrets"
    await write("POST", path, {"metadata": {"name": "s"}, "data": {"a": "eA=="}})
    revision = write.storage.revision
    await write("PATCH", f"{path}/s", {"stringData": {"b": "y"}}, "application/merge-patch+json")
    assert write.storage.revision == revision + 1


async def test_a_repeated_field_is_warned_of_and_refused_when_strict(write: Writer) -> None:
    body = b'{"metadata":{"name":"a"},"data":{"x":"1","x":"2","x":"3"}}'
    answer = await write.ask("POST", PATH, body)
    assert answer.warnings == ('duplicate field "x"', 'duplicate field "x"')
    with pytest.raises(BadRequest, match='strict decoding error: duplicate field "x"'):
        await write.ask("POST", f"{PATH}?fieldValidation=Strict", body)


async def test_a_review_without_anybody_to_answer_it_is_not_stored(write: Writer) -> None:
    with pytest.raises(NotFound):
        await write("POST", "/api/v1/namespaces/d/serviceaccounts/s/token", {})
    assert write.storage.revision == 1


def test_a_body_without_a_media_type_is_json() -> None:
    assert decode(Request("POST", "/", {}, b'{"a":1}')) == ({"a": 1}, [])


def test_facts_differ_each_time() -> None:
    first, second = facts(), facts()
    assert first.uid != second.uid
    assert len(first.suffix) == 5


def lamp_with_defaults(body: dict[str, Any]) -> None:
    body["spec"]["names"] |= {"listKind": "LampList", "singular": "lamp"}
    light = {"type": "object", "properties": {"lit": {"type": "boolean", "default": True}}}
    fields: dict[str, Any] = {"text": {"type": "string"}, "colour": {"type": "string", "default": "red"}}
    fields |= {"lights": {"type": "array", "items": light}}
    properties = {"spec": {"type": "object", "properties": fields}, "other": {"type": "string"}}
    body["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = {"type": "object", "properties": properties}


LAMPS = "/apis/example.com/v1/namespaces/d/lamps"
LARGE_SPEC = {"text": "x" * (LARGE_BYTES + 1), "bogus": 1, "lights": [{"bogus": 1}]}
LARGE_LAMP = {"apiVersion": "example.com/v1", "kind": "Lamp", "metadata": {"name": "a"}}


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("application/merge-patch+json", {"spec": LARGE_SPEC}),
        ("application/json-patch+json", [{"op": "add", "path": "/spec", "value": LARGE_SPEC}]),
        ("application/apply-patch+yaml", LARGE_LAMP | {"spec": {"text": LARGE_SPEC["text"], "lights": [{}]}}),
    ],
)
async def test_a_large_write_whose_plan_was_void_comes_out_as_any(tmp_path: Path, media_type: str, body: Any) -> None:
    """Admission prunes and defaults what it is given; the second plan is of what was sent, and not of that."""

    async def written(directory: Path, *, is_void: bool) -> tuple[Any, Any]:
        directory.mkdir()
        async with Storage.open(f"sqlite:///{directory / 'a.db'}") as storage:
            write = Writer(storage)
            await write("POST", "/api/v1/namespaces", {"metadata": {"name": "d"}})
            definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            await write("POST", definitions, crd(lamp_with_defaults))
            await write("POST", LAMPS, LARGE_LAMP)
            small = write.ask("PATCH", f"{LAMPS}/a", {"other": "1"}, "application/merge-patch+json")
            if not is_void:
                await small
            large = asyncio.create_task(write.ask("PATCH", f"{LAMPS}/a?fieldManager=m", body, media_type))
            if is_void:
                await asyncio.sleep(0)  # its plan is made, and its file being written
                await small
            answer = await large
            assert len([*(directory / "a.db-large").iterdir()]) == 1
        found = json.loads(answer.body)
        for name in ("uid", "creationTimestamp"):
            del found["metadata"][name]
        for manager in found["metadata"].get("managedFields", ()):
            manager.pop("time", None)
        return found, answer.warnings

    assert await written(tmp_path / "void", is_void=True) == await written(tmp_path / "not", is_void=False)
