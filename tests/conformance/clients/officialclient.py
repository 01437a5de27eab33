"""
The official client: its dynamic client for what any kind has, its typed APIs, Watch, SharedInformer and LeaderElection.

It blocks, which hurts nobody: it has its process to itself.
"""

import json
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.informer import SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from tests.conformance.contract import LEASE, PARTIAL, PATCHES, POD, TABLE, Body, Client, Event, Kind, Listed, Refused
from tests.conformance.seeds import HOLDER, RENEWALS


class Official(Client):
    """See tests.conformance.contract.Client."""

    def __init__(self, namespace: str) -> None:
        # Named: by itself it looks at KUBECONFIG when it is imported, which for a forked process is too early.
        config.load_kube_config(os.environ["KUBECONFIG"])
        self._api = client.ApiClient()
        self._dynamic = dynamic.DynamicClient(self._api)
        self._core = client.CoreV1Api(self._api)
        self._custom = client.CustomObjectsApi(self._api)
        self._namespace = namespace

    def _of(self, kind: Kind) -> Any:
        return self._dynamic.resources.get(api_version=kind.api_version, kind=kind.kind)

    async def get(self, kind: Kind, name: str) -> Body:
        with _translated():
            found: Body = self._of(kind).get(name=name, namespace=self._namespace).to_dict()
        return found

    async def listing(self, kind: Kind, *, labels: str = "", fields: str = "", everywhere: bool = False) -> Listed:
        where = None if everywhere else self._namespace
        with _translated():
            return _listed(
                self._of(kind).get(namespace=where, label_selector=labels or None, field_selector=fields or None)
            )

    async def pages(self, kind: Kind, size: int) -> list[Listed]:
        found: list[Listed] = []
        token: str | None = None
        while token is None or token:
            with _translated():
                page = self._of(kind).get(namespace=self._namespace, limit=size, _continue=token)
            found.append(_listed(page))
            token = page.metadata.to_dict().get("continue") or ""
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
        watching = watch.Watch()
        stream = watching.stream(function, *arguments, **options)
        try:
            while True:
                with _translated():
                    found = next(stream, None)
                if found is None:
                    return
                yield Event(found["type"], found["raw_object"])
        finally:
            watching.stop()
            stream.close()

    async def create(self, kind: Kind, body: Body, *, dry_run: bool = False) -> Body:
        options = {"dry_run": "All"} if dry_run else {}
        with _translated():
            made: Body = self._of(kind).create(body=body, namespace=self._namespace, **options).to_dict()
        return made

    async def create_strictly(self, kind: Kind, body: Body) -> Body:
        group, _, served = kind.api_version.partition("/")
        with _translated():
            made: Any = self._custom.create_namespaced_custom_object(
                group, served, self._namespace, kind.plural, body, field_validation="Strict"
            )
        return dict(made)

    async def replace(self, kind: Kind, body: Body) -> Body:
        with _translated():
            replaced: Body = self._of(kind).replace(body=body, namespace=self._namespace).to_dict()
        return replaced

    async def patch(self, kind: Kind, name: str, patch: Any, how: str = "merge", *, status: bool = False) -> Body:
        resource = self._of(kind)
        with _translated():
            found = (resource.status if status else resource).patch(
                body=patch, name=name, namespace=self._namespace, content_type=PATCHES[how]
            )
        patched: Body = found.to_dict()
        return patched

    async def apply(self, kind: Kind, body: Body, manager: str, *, force: bool = False) -> Body:
        with _translated():
            found = self._of(kind).server_side_apply(
                body=body, namespace=self._namespace, field_manager=manager, force_conflicts=force
            )
        applied: Body = found.to_dict()
        return applied

    async def delete(self, kind: Kind, name: str, *, preconditions: Mapping[str, str] | None = None) -> None:
        body = {"preconditions": dict(preconditions)} if preconditions else None
        with _translated():
            self._of(kind).delete(name=name, namespace=self._namespace, body=body)

    async def delete_all(self, kind: Kind, labels: str) -> None:
        with _translated():
            self._of(kind).delete(namespace=self._namespace, label_selector=labels)

    def _raw(self, path: str, accept: str = "application/json") -> Any:
        with _translated():
            answer = self._dynamic.request("get", path, header_params={"Accept": accept}, serialize=False)
        return json.loads(answer.data)

    async def table(self, kind: Kind) -> tuple[list[str], list[list[str]]]:
        found = self._raw(kind.path(self._namespace), TABLE)
        assert found["kind"] == "Table"
        rows = [[str(cell) for cell in row["cells"]] for row in found["rows"]]
        return [column["name"] for column in found["columnDefinitions"]], rows

    async def metadata(self, kind: Kind) -> list[Body]:
        found = self._raw(kind.path(self._namespace), PARTIAL)
        assert found["kind"] == "PartialObjectMetadataList"
        items: list[Body] = found["items"]
        return items

    async def raw(self, path: str) -> Any:
        return self._raw(path)

    async def kinds(self) -> set[str]:
        with _translated():
            found = self._dynamic.resources.search()
        return {f"{each.name}.{each.group}" if each.group else each.name for each in found if hasattr(each, "name")}

    async def version(self) -> str:
        with _translated():
            return str(client.VersionApi(self._api).get_code().git_version)

    async def can_i(self, verb: str, kind: Kind) -> bool:
        attributes = client.V1ResourceAttributes(
            verb=verb, group=kind.group, resource=kind.plural, namespace=self._namespace
        )
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        with _translated():
            answer = client.AuthorizationV1Api(self._api).create_self_subject_access_review(review)
        return bool(answer.status and answer.status.allowed)

    async def token(self, account: str) -> str:
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        with _translated():
            answer = self._core.create_namespaced_service_account_token(account, self._namespace, request)
        return str(answer.status.token) if answer.status else ""

    async def lead(self, lease: str) -> list[str]:
        found: list[str] = []

        def leading() -> None:
            """Look on until it has been renewed often enough; an error ends the election."""
            while len(found) < RENEWALS:
                renewed = self._of(LEASE).get(name=lease, namespace=self._namespace).spec.renewTime
                if renewed not in found:
                    found.append(renewed)
                time.sleep(0.05)
            raise RuntimeError("led long enough")  # ends the election; it is logged

        stopped = threading.Event()
        lock = LeaseLock(lease, self._namespace, HOLDER)
        lock.api_instance = client.CoordinationV1Api(self._api)
        leaderelection.LeaderElection(electionconfig.Config(lock, 4, 3, 1, leading, stopped.set)).run()
        assert stopped.is_set()
        return found

    async def informed(self, kind: Kind) -> "RunningInformer":
        assert kind == POD
        return RunningInformer(self._core.list_namespaced_pod, self._namespace)

    async def close(self) -> None:
        self._api.close()


class RunningInformer:
    """See tests.conformance.contract.Informed."""

    def __init__(self, function: Callable[..., Any], namespace: str) -> None:
        self._seen: list[tuple[str, str]] = []
        self._informer = SharedInformer(function, namespace=namespace)
        for kind in ("ADDED", "MODIFIED", "DELETED", "ERROR"):
            self._informer.add_event_handler(kind, lambda item, kind=kind: self._seen.append((kind, _name(item))))
        self._informer.start()

    def names(self) -> set[str]:
        return {_name(item) for item in self._informer.cache.list()}

    def seen(self) -> list[tuple[str, str]]:
        return list(self._seen)

    def stop(self) -> None:
        self._informer.stop()


def _name(item: Any) -> str:
    return str(item.metadata.name) if hasattr(item, "metadata") else repr(item)


def _listed(found: Any) -> Listed:
    value = found.to_dict()
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


def open_client(name: str, namespace: str) -> Official:
    return Official(namespace)
