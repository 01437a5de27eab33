"""kubernetes_asyncio: its dynamic client, its typed APIs and Watch."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubernetes_asyncio import client, config, dynamic, watch
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.leaderelection import electionconfig, leaderelection
from kubernetes_asyncio.leaderelection.resourcelock.leaselock import LeaseLock

from tests.conformance.contract import LEASE, PARTIAL, PATCHES, POD, TABLE, Body, Client, Event, Kind, Listed, Refused
from tests.conformance.seeds import HOLDER, RENEWALS


class Asyncio(Client):
    """See tests.conformance.contract.Client."""

    def __init__(self, api: client.ApiClient, dynamic_client: dynamic.DynamicClient, namespace: str) -> None:
        self._api = api
        self._dynamic = dynamic_client
        self._core = client.CoreV1Api(api)
        self._custom = client.CustomObjectsApi(api)
        self._namespace = namespace

    async def _of(self, kind: Kind) -> Any:
        return await self._dynamic.resources.get(api_version=kind.api_version, kind=kind.kind)

    async def get(self, kind: Kind, name: str) -> Body:
        with _translated():
            return _body(await (await self._of(kind)).get(name=name, namespace=self._namespace))

    async def listing(self, kind: Kind, *, labels: str = "", fields: str = "", everywhere: bool = False) -> Listed:
        where = None if everywhere else self._namespace
        with _translated():
            resource = await self._of(kind)
            return _listed(
                await resource.get(namespace=where, label_selector=labels or None, field_selector=fields or None)
            )

    async def pages(self, kind: Kind, size: int) -> list[Listed]:
        found: list[Listed] = []
        token: str | None = None
        while token is None or token:
            with _translated():
                page = await (await self._of(kind)).get(namespace=self._namespace, limit=size, _continue=token)
            found.append(_listed(page))
            token = _body(page)["metadata"].get("continue") or ""
        return found

    async def watch(
        self, kind: Kind, version: str = "", *, timeout_s: int = 0, bookmarks: bool = False, initial: bool = False
    ) -> AsyncGenerator[Event, None]:
        options: dict[str, Any] = {}
        if version:
            options["resource_version"] = version
        if timeout_s:
            options["timeout_seconds"] = timeout_s
        if bookmarks:
            options["allow_watch_bookmarks"] = True
        if initial:
            options |= {"send_initial_events": True, "resource_version_match": "NotOlderThan"}
        function: Any = self._core.list_namespaced_pod
        arguments = [self._namespace]
        if kind != POD:
            group, _, served = kind.api_version.partition("/")
            function = self._custom.list_namespaced_custom_object
            arguments = [group, served, self._namespace, kind.plural]
        with _translated():
            async with watch.Watch().stream(function, *arguments, **options) as stream:
                async for event in stream:
                    yield Event(event["type"], event["raw_object"])

    async def create(self, kind: Kind, body: Body, *, dry_run: bool = False) -> Body:
        options = {"dry_run": "All"} if dry_run else {}
        with _translated():
            return _body(await (await self._of(kind)).create(body=body, namespace=self._namespace, **options))

    async def create_strictly(self, kind: Kind, body: Body) -> Body:
        group, _, served = kind.api_version.partition("/")
        with _translated():
            made: Body = await self._custom.create_namespaced_custom_object(
                group, served, self._namespace, kind.plural, body, field_validation="Strict"
            )
        return made

    async def replace(self, kind: Kind, body: Body) -> Body:
        with _translated():
            return _body(await (await self._of(kind)).replace(body=body, namespace=self._namespace))

    async def patch(self, kind: Kind, name: str, patch: Any, how: str = "merge", *, status: bool = False) -> Body:
        with _translated():
            resource = await self._of(kind)
            return _body(
                await (resource.status if status else resource).patch(
                    body=patch, name=name, namespace=self._namespace, content_type=PATCHES[how]
                )
            )

    async def apply(self, kind: Kind, body: Body, manager: str, *, force: bool = False) -> Body:
        with _translated():
            resource = await self._of(kind)
            return _body(
                await resource.server_side_apply(
                    body=body, namespace=self._namespace, field_manager=manager, force_conflicts=force
                )
            )

    async def delete(self, kind: Kind, name: str, *, preconditions: Mapping[str, str] | None = None) -> None:
        body = {"preconditions": dict(preconditions)} if preconditions else None
        with _translated():
            _body(await (await self._of(kind)).delete(name=name, namespace=self._namespace, body=body))

    async def delete_all(self, kind: Kind, labels: str) -> None:
        with _translated():
            _body(await (await self._of(kind)).delete(namespace=self._namespace, label_selector=labels))

    async def _raw(self, path: str, accept: str = "application/json") -> Any:
        with _translated():
            answer = await self._dynamic.request("get", path, header_params={"Accept": accept}, serialize=False)
        return json.loads(await answer.read())

    async def table(self, kind: Kind) -> tuple[list[str], list[list[str]]]:
        found = await self._raw(kind.path(self._namespace), TABLE)
        assert found["kind"] == "Table"
        rows = [[str(cell) for cell in row["cells"]] for row in found["rows"]]
        return [column["name"] for column in found["columnDefinitions"]], rows

    async def metadata(self, kind: Kind) -> list[Body]:
        found = await self._raw(kind.path(self._namespace), PARTIAL)
        assert found["kind"] == "PartialObjectMetadataList"
        items: list[Body] = found["items"]
        return items

    async def raw(self, path: str) -> Any:
        return await self._raw(path)

    async def kinds(self) -> set[str]:
        with _translated():
            found = await self._dynamic.resources.search()
        return {
            f"{each.name}.{each.group}" if each.group else str(each.name) for each in found if hasattr(each, "name")
        }

    async def version(self) -> str:
        with _translated():
            return str((await client.VersionApi(self._api).get_code()).git_version)

    async def can_i(self, verb: str, kind: Kind) -> bool:
        attributes = client.V1ResourceAttributes(
            verb=verb, group=kind.group, resource=kind.plural, namespace=self._namespace
        )
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        with _translated():
            answer = await client.AuthorizationV1Api(self._api).create_self_subject_access_review(review)
        return bool(answer.status.allowed)

    async def token(self, account: str) -> str:
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        with _translated():
            answer = await self._core.create_namespaced_service_account_token(account, self._namespace, request)
        return str(answer.status.token)

    async def lead(self, lease: str) -> list[str]:
        leading, found = asyncio.Event(), list[str]()

        async def started() -> None:
            leading.set()

        async def stopped() -> None:
            raise AssertionError("the lead was lost")

        lock = LeaseLock(lease, self._namespace, HOLDER, self._api)
        election = leaderelection.LeaderElection(electionconfig.Config(lock, 4, 3, 1, started, stopped))
        running = asyncio.create_task(election.run(), name="election")
        await leading.wait()
        while len(found) < RENEWALS and not running.done():
            renewed = (await self.get(LEASE, lease))["spec"]["renewTime"]
            if renewed not in found:
                found.append(renewed)
            await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.wait([running])
        return found

    async def close(self) -> None:
        await self._api.close()


def _body(found: Any) -> Body:
    """Its dynamic client raises nothing for an error: the answer is then a Status like any object."""
    value: Body = found.to_dict()
    if value.get("kind") == "Status" and value.get("status") == "Failure":
        raise Refused(str(value.get("reason")), str(value.get("message")))
    return value


def _listed(found: Any) -> Listed:
    value = _body(found)
    return Listed(value["items"], value["metadata"]["resourceVersion"])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ApiException as exc:
        if exc.body:
            raise Refused.of(exc.body, f"{exc.status} {exc.reason}") from exc
        reason, _, message = str(exc.reason).partition(": ")  # of an ERROR event
        raise Refused(reason, message) from exc


async def open_client(name: str, namespace: str) -> Asyncio:
    # Named: see officialclient.
    await config.load_kube_config(os.environ["KUBECONFIG"])
    api = client.ApiClient()
    return Asyncio(api, await dynamic.DynamicClient(api), namespace)
