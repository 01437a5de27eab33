"""kr8s in its asyncio form: its objects for what they do, its documented call_api for what they do not."""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import kr8s
from kr8s.asyncio.objects import APIObject, new_class

from tests.conformance.contract import PARTIAL, PATCHES, TABLE, Body, Client, Event, Kind, Listed, Refused


class Kr8s(Client):
    """See tests.conformance.contract.Client."""

    def __init__(self, api: Any, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._classes: dict[Kind, type[APIObject]] = {}

    def _class(self, kind: Kind) -> type[APIObject]:
        if kind not in self._classes:
            self._classes[kind] = new_class(kind.kind, kind.api_version, plural=kind.plural)
        return self._classes[kind]

    def _object(self, kind: Kind, body: Body) -> APIObject:
        made = self._class(kind)(body, namespace=self._namespace, api=self._api)
        return made

    async def _call(self, method: str, kind: Kind, name: str = "", **options: Any) -> Any:
        url = f"{kind.plural}/{name}" if name else kind.plural
        with _translated():
            async with self._api.call_api(
                method, version=kind.api_version, namespace=self._namespace, url=url, **options
            ) as answer:
                return answer.json()

    async def get(self, kind: Kind, name: str) -> Body:
        held = self._object(kind, kind.body(name))
        with _translated():
            await held.refresh()
        return _body(held)

    async def listing(self, kind: Kind, *, labels: str = "", fields: str = "", everywhere: bool = False) -> Listed:
        where = kr8s.ALL if everywhere else self._namespace
        options = {"label_selector": labels or None, "field_selector": fields or None}
        with _translated():
            items = [_body(item) async for item in self._api.get(self._class(kind), namespace=where, **options)]
        page = await self._call("GET", kind, params={"limit": 1})  # the objects do not tell the list's version
        return Listed(items, page["metadata"]["resourceVersion"])

    async def pages(self, kind: Kind, size: int) -> list[Listed]:
        found: list[Listed] = []
        token = None
        while token is None or token:
            options = {"limit": size} | ({"continue": token} if token else {})
            page = await self._call("GET", kind, params=options)
            found.append(Listed(page["items"], page["metadata"]["resourceVersion"]))
            token = page["metadata"].get("continue", "")
        return found

    async def watch(
        self, kind: Kind, version: str = "", *, timeout_s: int = 0, bookmarks: bool = False, initial: bool = False
    ) -> AsyncGenerator[Event, None]:
        if not (timeout_s or bookmarks or initial):
            stream = self._api.watch(self._class(kind), namespace=self._namespace, since=version or None)
            with _translated():
                async for change, item in stream:
                    yield Event(change, _body(item))
            return
        options: dict[str, Any] = {"watch": "true", "timeoutSeconds": timeout_s, "allowWatchBookmarks": bookmarks}
        if version:
            options["resourceVersion"] = version
        if initial:
            options |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        with _translated():
            async with self._api.call_api(
                "GET",
                version=kind.api_version,
                namespace=self._namespace,
                url=kind.plural,
                params=options,
                stream=True,
                timeout=None,
            ) as answer:
                async for line in answer.aiter_lines():
                    found = json.loads(line)
                    yield Event(found["type"], found["object"])

    async def create(self, kind: Kind, body: Body, *, dry_run: bool = False) -> Body:
        if dry_run:
            made: Body = await self._call("POST", kind, params={"dryRun": "All"}, content=json.dumps(body))
            return made
        fresh = self._object(kind, body)
        with _translated():
            await fresh.create()
        return _body(fresh)

    async def create_strictly(self, kind: Kind, body: Body) -> Body:
        made: Body = await self._call("POST", kind, params={"fieldValidation": "Strict"}, content=json.dumps(body))
        return made

    async def replace(self, kind: Kind, body: Body) -> Body:
        replaced: Body = await self._call("PUT", kind, body["metadata"]["name"], content=json.dumps(body))
        return replaced

    async def patch(self, kind: Kind, name: str, patch: Any, how: str = "merge", *, status: bool = False) -> Body:
        if how == "strategic":
            headers = {"Content-Type": PATCHES[how]}
            patched: Body = await self._call("PATCH", kind, name, headers=headers, content=json.dumps(patch))
            return patched
        held = self._object(kind, kind.body(name))
        with _translated():
            await held.patch(patch, subresource="status" if status else None, type="json" if how == "json" else None)
        return _body(held)

    async def apply(self, kind: Kind, body: Body, manager: str, *, force: bool = False) -> Body:
        applied: Body = await self._call(
            "PATCH",
            kind,
            body["metadata"]["name"],
            params={"fieldManager": manager, "force": "true" if force else "false"},
            headers={"Content-Type": PATCHES["apply"]},
            content=json.dumps(body),
        )
        return applied

    async def delete(self, kind: Kind, name: str, *, preconditions: Mapping[str, str] | None = None) -> None:
        if preconditions is not None:
            await self._call("DELETE", kind, name, content=json.dumps({"preconditions": dict(preconditions)}))
            return
        with _translated():
            await self._object(kind, kind.body(name)).delete()

    async def delete_all(self, kind: Kind, labels: str) -> None:
        await self._call("DELETE", kind, params={"labelSelector": labels})

    async def wait(self, kind: Kind, name: str, condition: str) -> None:
        with _translated():
            await self._object(kind, kind.body(name)).wait(f"condition={condition}", timeout=15)

    async def table(self, kind: Kind) -> tuple[list[str], list[list[str]]]:
        found = await self._call("GET", kind, headers={"Accept": TABLE})
        assert found["kind"] == "Table"
        rows = [[str(cell) for cell in row["cells"]] for row in found["rows"]]
        return [column["name"] for column in found["columnDefinitions"]], rows

    async def metadata(self, kind: Kind) -> list[Body]:
        found = await self._call("GET", kind, headers={"Accept": PARTIAL})
        assert found["kind"] == "PartialObjectMetadataList"
        items: list[Body] = found["items"]
        return items

    async def raw(self, path: str) -> Any:
        with _translated():
            async with self._api.call_api("GET", version="", base=path) as answer:
                return answer.json()

    async def kinds(self) -> set[str]:
        with _translated():
            found = await self._api.api_resources()
        groups = [(each["name"], each["version"].rpartition("/")[0]) for each in found]
        return {f"{plural}.{group}" if group else plural for plural, group in groups}

    async def version(self) -> str:
        with _translated():
            return str((await self._api.version())["gitVersion"])

    async def can_i(self, verb: str, kind: Kind) -> bool:
        review = new_class("SelfSubjectAccessReview", "authorization.k8s.io/v1", namespaced=False)
        attributes = {"verb": verb, "group": kind.group, "resource": kind.plural, "namespace": self._namespace}
        asked = review({"metadata": {}, "spec": {"resourceAttributes": attributes}}, api=self._api)
        with _translated():
            await asked.create()
        return bool(asked.raw["status"]["allowed"])

    async def token(self, account: str) -> str:
        kind = Kind("v1", "ServiceAccount", "serviceaccounts")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
        answer = await self._call("POST", kind, f"{account}/token", content=json.dumps(request))
        return str(answer["status"]["token"])


def _body(item: Any) -> Body:
    found: Body = item.to_dict()
    return found


def _refused(answered: kr8s.ServerError | None, exc: Exception) -> Refused:
    response = None if answered is None else answered.response
    return Refused.of(None if response is None else response.text, str(exc))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except kr8s.NotFoundError as exc:
        cause = exc.__cause__  # has the server's words, which this one drops
        raise _refused(cause if isinstance(cause, kr8s.ServerError) else None, exc) from exc
    except kr8s.ServerError as exc:
        raise _refused(exc, exc) from exc


async def open_client(name: str, namespace: str) -> Kr8s:
    return Kr8s(await kr8s.asyncio.api(namespace=namespace), namespace)
