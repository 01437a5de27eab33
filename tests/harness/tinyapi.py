"""
As much of an apiserver as a client needs to be tested against, with what a real one does only on bad days.

Served over real HTTP: lists in pages, watches with bookmarks, 410, optimistic concurrency, the status
subresource, definitions that come and go. A test may look at every request, answer some itself (`answer`),
forget history (`compact`) and break streams (`break_watches`). Two habits of kube-apiserver's that clients
trip over are kept: the items of a list of a built-in kind do not say what they are, and a status
subresource that is not there is answered like an object that is not there.
"""

import asyncio
import contextlib
import copy
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from apimachinery.errors import AlreadyExists, ApiError, Conflict, Expired, NotFound
from apimachinery.keys import ObjectKey, Resource
from apimachinery.resources import (
    BUILT_IN,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEVICE_MODELS,
    DEVICE_STATUSES,
    DEVICES,
    LEASES,
)
from apimachinery.selectors import parse_labels
from apiserver.http import Server, serve
from apiserver.messages import Request, Response, error_response, json_response

DEVICE_RESOURCES = (DEVICES, DEVICE_MODELS, DEVICE_STATUSES)


class Logged(NamedTuple):
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


class _Happened(NamedTuple):
    revision: int
    type: str
    key: ObjectKey
    value: dict[str, Any]


class TinyApi:
    """Its objects and what it was asked. Change them with put() and delete(), as kubectl would."""

    def __init__(self, resources: Iterable[Resource] = (*BUILT_IN, *DEVICE_RESOURCES)) -> None:
        self.served: set[Resource] = set(resources)
        self.with_status = {"nodes", "pods", "devices.devices.kubeedge.io"}
        """Collections that have a status subresource."""
        self.objects: dict[ObjectKey, dict[str, Any]] = {}
        self.requests: list[Logged] = []
        self.answer: Callable[[Request], Response | ApiError | None] = lambda request: None
        """May answer a request, or refuse it, before anything else does."""
        self.revision = 100
        self.page_limit = 1000
        self.watch_most_s = 60.0
        self.bookmark_every_s = 60.0
        self.watchers = 0
        self.url = ""
        self._uids = 0
        self._history: list[_Happened] = []
        self._compacted = 100
        self._news = asyncio.Condition()
        self._generation = 0

    # What a test does

    async def put(self, resource: Resource, value: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """Create or replace an object, status included."""
        key = ObjectKey(resource, namespace, value["metadata"]["name"])
        return await self._keep(key, copy.deepcopy(dict(value)))

    async def delete(self, key: ObjectKey) -> None:
        value = self.objects.pop(key)
        await self._happen("DELETED", key, value)

    async def withdraw(self, resource: Resource) -> None:
        """Delete a custom resource's definition and, as its finalizer does, its objects."""
        for key in [key for key in self.objects if key.resource == resource]:
            await self.delete(key)
        self.served.discard(resource)
        self.objects.pop(ObjectKey(CUSTOM_RESOURCE_DEFINITIONS, "", resource.collection), None)
        await self.break_watches()

    async def define(self, resource: Resource) -> None:
        """Serve a custom resource, and have its definition."""
        self.served.add(resource)
        await self.put(CUSTOM_RESOURCE_DEFINITIONS, {"metadata": {"name": resource.collection}})

    def compact(self) -> None:
        """Forget how the present state came about."""
        self._compacted = self.revision
        self._history.clear()

    async def break_watches(self) -> None:
        """End all watches that are running."""
        self._generation += 1
        async with self._news:
            self._news.notify_all()

    def asked(self, method: str, path_part: str = "") -> list[Logged]:
        """The requests so far of a method, to paths that contain this; watches count as WATCH."""
        return [entry for entry in self.requests if entry.method == method and path_part in entry.path]

    # What a server does

    async def __call__(self, request: Request) -> Response:
        query = dict(request.query)
        watching = request.method == "GET" and query.get("watch") in ("1", "true")
        body: Any = json.loads(request.body) if request.body else None
        method = "WATCH" if watching else request.method
        self.requests.append(Logged(method, request.path, query, request.headers, body))
        own = self.answer(request)
        if isinstance(own, ApiError):
            return error_response(own)
        if own is not None:
            return own
        if (discovered := self._discovery(request.path)) is not None:
            return discovered
        resource, namespace, name, subresource = self._resolve(request.path)
        key = ObjectKey(resource, namespace, name)
        match request.method:
            case "GET" if watching:
                return self._watch(resource, namespace, query)
            case "GET" if not name:
                return self._list(resource, namespace, query)
            case "GET":
                return json_response(200, self._found(key))
            case "POST":
                key = key._replace(name=body["metadata"]["name"])
                if key in self.objects:
                    raise AlreadyExists(f'{resource.collection} "{key.name}" already exists')
                return json_response(201, await self._keep(key, body))
            case "PUT" | "PATCH":
                return json_response(200, await self._change(key, subresource, body, request.method == "PATCH"))
            case "DELETE":
                self._found(key)
                await self.delete(key)
                return json_response(200, {"kind": "Status", "status": "Success"})
        raise AssertionError(request.method)

    def _discovery(self, path: str) -> Response | None:
        for resource in self.served:
            if path == f"/apis/{resource.group}" and resource.group:
                version = {"version": resource.version}
                return json_response(200, {"versions": [{"version": "v0"}, version], "preferredVersion": version})
            if path == resource.path().rpartition("/")[0]:
                entries = [
                    {"name": each.plural, "kind": each.kind, "namespaced": each.namespaced}
                    for each in self.served
                    if each.api_version == resource.api_version
                ]
                return json_response(200, {"kind": "APIResourceList", "resources": entries})
        return None

    def _resolve(self, path: str) -> tuple[Resource, str, str, str]:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        for resource in self.served:
            head = (["apis", resource.group] if resource.group else ["api"]) + [resource.version]
            if parts[: len(head)] != head:
                continue
            rest, namespace = parts[len(head) :], ""
            if len(rest) > 2 and rest[0] == "namespaces":
                namespace, rest = rest[1], rest[2:]
            if rest and rest[0] == resource.plural and (resource.namespaced or not namespace):
                name, subresource = [*rest[1:], "", ""][:2]
                return resource, namespace, name, subresource
        raise NotFound("the server could not find the requested resource")

    def _found(self, key: ObjectKey) -> dict[str, Any]:
        if key not in self.objects:
            collection = key.resource.collection
            raise NotFound(f'{collection} "{key.name}" not found', name=key.name, kind=key.resource.plural)
        return self.objects[key]

    async def _keep(self, key: ObjectKey, value: dict[str, Any]) -> dict[str, Any]:
        held = self.objects.get(key)
        metadata = value.setdefault("metadata", {})
        if key.namespace:
            metadata["namespace"] = key.namespace
        if held is None:
            self._uids += 1
        metadata["uid"] = held["metadata"]["uid"] if held else f"uid-{self._uids}"
        generation = held["metadata"].get("generation", 0) if held else 0
        if key.resource != LEASES:  # kube-apiserver counts none for them
            metadata["generation"] = generation + (held is None or held.get("spec") != value.get("spec"))
        value.setdefault("apiVersion", key.resource.api_version)
        value.setdefault("kind", key.resource.kind)
        metadata["resourceVersion"] = str(self.revision + 1)
        self.objects[key] = value
        await self._happen("ADDED" if held is None else "MODIFIED", key, value)
        return value

    async def _change(self, key: ObjectKey, subresource: str, body: dict[str, Any], merging: bool) -> dict[str, Any]:
        held = self._found(key)
        if subresource and key.resource.collection not in self.with_status:
            raise NotFound(f'{key.resource.collection} "{key.name}" not found', name=key.name)
        wanted = (body.get("metadata") or {}).get("resourceVersion")
        if wanted and wanted != held["metadata"]["resourceVersion"]:
            raise Conflict(f'Operation cannot be fulfilled on {key.resource.collection} "{key.name}"')
        value = _merge(held, body) if merging else copy.deepcopy(body)
        if subresource:
            value = {**held, "metadata": dict(held["metadata"]), "status": value.get("status")}
        elif key.resource.collection in self.with_status and "status" in held:
            value["status"] = held["status"]
        return await self._keep(key, value)

    async def _happen(self, kind: str, key: ObjectKey, value: dict[str, Any]) -> None:
        self.revision += 1
        self._history.append(_Happened(self.revision, kind, key, copy.deepcopy(value)))
        async with self._news:
            self._news.notify_all()

    def _list(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> Response:
        selector = parse_labels(query.get("labelSelector", ""))
        items = [
            value
            for key, value in sorted(self.objects.items(), key=lambda pair: pair[0][1:])
            if key.resource == resource
            and namespace in ("", key.namespace)
            and selector.matches(value["metadata"].get("labels") or {})
        ]
        start = int(query.get("continue", 0))
        limit = min(int(query.get("limit", self.page_limit)), self.page_limit)
        metadata = {"resourceVersion": str(self.revision)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        items = items[start : start + limit]
        if resource in BUILT_IN:
            items = [
                {name: part for name, part in item.items() if name not in ("apiVersion", "kind")} for item in items
            ]
        return json_response(200, {"kind": f"{resource.kind}List", "metadata": metadata, "items": items})

    def _watch(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> Response:
        since = int(query["resourceVersion"])
        if since < self._compacted:
            raise Expired(f"too old resource version: {since} ({self._compacted})")
        seconds = min(float(query.get("timeoutSeconds", 60)), self.watch_most_s)
        return Response(200, [("content-type", "application/json")], self._events(resource, namespace, since, seconds))

    async def _events(self, resource: Resource, namespace: str, since: int, seconds: float) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        generation = self._generation
        self.watchers += 1
        try:
            while generation == self._generation and (left := until - loop.time()) > 0:
                if since < self._compacted and any(entry.revision > since for entry in self._history):
                    yield _line("ERROR", Expired("too old resource version").status())
                    return
                for entry in [entry for entry in self._history if entry.revision > since]:
                    since = entry.revision
                    if entry.key.resource == resource and namespace in ("", entry.key.namespace):
                        value = entry.value | {"apiVersion": resource.api_version, "kind": resource.kind}
                        value["metadata"] = value["metadata"] | {"resourceVersion": str(entry.revision)}
                        yield _line(entry.type, value)
                try:
                    async with asyncio.timeout(min(left, self.bookmark_every_s)):
                        async with self._news:
                            if not any(entry.revision > since for entry in self._history):
                                await self._news.wait()
                except TimeoutError:
                    bookmark = {"kind": resource.kind, "metadata": {"resourceVersion": str(self.revision)}}
                    yield _line("BOOKMARK", bookmark)
        finally:
            self.watchers -= 1


def _line(kind: str, value: object) -> bytes:
    return json.dumps({"type": kind, "object": value}).encode() + b"\n"


def _merge(current: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(current) if isinstance(current, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), part)
    return merged


@contextlib.asynccontextmanager
async def tiny_api(api: TinyApi | None = None, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[TinyApi]:
    """Serves on loopback until the block is left; `url` is set meanwhile."""
    api = api or TinyApi()
    server: Server
    async with serve(api, host="127.0.0.1", port=0, ssl_context=ssl_context) as server:
        api.url = f"http{'s' if ssl_context else ''}://127.0.0.1:{server.port}"
        yield api


def kubeconfig(url: str, user: Mapping[str, Any] | None = None, cluster: Mapping[str, Any] | None = None) -> str:
    """The text of a kubeconfig for this server; JSON is YAML."""
    context = {"cluster": "c"} | ({"user": "u"} if user is not None else {})
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url, **(cluster or {})}}],
        "contexts": [{"name": "x", "context": context}],
        "users": [{"name": "u", "user": dict(user)}] if user is not None else [],
        "current-context": "x",
    }
    return json.dumps(value, indent=1)
