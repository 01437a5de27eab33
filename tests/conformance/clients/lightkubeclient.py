"""lightkube, with its typed resources."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightkube import ALL_NS, ApiError, Client, operators
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.authentication_v1 import TokenRequestSpec
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview
from lightkube.resources.coordination_v1 import Lease
from lightkube.resources.core_v1 import ConfigMap, Event, Pod, Secret, ServiceAccount, ServiceAccountToken
from lightkube.types import PatchType

from tests.conformance import contract
from tests.conformance.contract import Body, Kind, Listed, Refused

Widget = create_namespaced_resource("example.com", "v1", "Widget", "widgets", verbs=None)
CLASSES: Mapping[Kind, Any] = {
    contract.WIDGET: Widget,
    contract.CONFIG_MAP: ConfigMap,
    contract.SECRET: Secret,
    contract.POD: Pod,
    contract.EVENT: Event,
    contract.LEASE: Lease,
    contract.SERVICE_ACCOUNT: ServiceAccount,
}
PATCHES = {"json": PatchType.JSON, "merge": PatchType.MERGE, "strategic": PatchType.STRATEGIC}
MANAGER = "lightkube"


class Lightkube(contract.Client):
    """See tests.conformance.contract.Client."""

    def __init__(self, namespace: str) -> None:
        self._client = Client(namespace=namespace, field_manager=MANAGER)
        self._namespace = namespace

    async def get(self, kind: Kind, name: str) -> Body:
        with _translated():
            return _body(self._client.get(CLASSES[kind], name))

    async def listing(self, kind: Kind, *, labels: str = "", fields: str = "", everywhere: bool = False) -> Listed:
        where = ALL_NS if everywhere else self._namespace
        with _translated():
            found = self._client.list(
                CLASSES[kind], namespace=where, labels=_selector(labels), fields=_selector(fields)
            )
            items = [_body(item) for item in found]
        return Listed(items, found.resourceVersion)

    async def pages(self, kind: Kind, size: int) -> list[Listed]:
        with _translated():
            found = self._client.list(CLASSES[kind], chunk_size=size)
            return [Listed([_body(item) for item in found], found.resourceVersion)]

    async def watch(
        self, kind: Kind, version: str = "", *, timeout_s: int = 0, bookmarks: bool = False, initial: bool = False
    ) -> AsyncGenerator[contract.Event, None]:
        assert (bookmarks, initial) == (False, False), "the matrix says that it has none"
        stream = self._client.watch(CLASSES[kind], resource_version=version or None, server_timeout=timeout_s or None)
        while True:
            with _translated():
                found = next(iter(stream))
            yield contract.Event(found[0], _body(found[1]))

    async def create(self, kind: Kind, body: Body, *, dry_run: bool = False) -> Body:
        with _translated():
            return _body(self._client.create(CLASSES[kind].from_dict(body), dry_run=dry_run))

    async def replace(self, kind: Kind, body: Body) -> Body:
        with _translated():
            return _body(self._client.replace(CLASSES[kind].from_dict(body)))

    async def patch(self, kind: Kind, name: str, patch: Any, how: str = "merge", *, status: bool = False) -> Body:
        resource = CLASSES[kind].Status if status else CLASSES[kind]
        with _translated():
            return _body(self._client.patch(resource, name, patch, patch_type=PATCHES[how]))

    async def apply(self, kind: Kind, body: Body, manager: str, *, force: bool = False) -> Body:
        with _translated():
            return _body(self._client.apply(CLASSES[kind].from_dict(body), field_manager=manager, force=force))

    async def delete(self, kind: Kind, name: str, *, preconditions: Mapping[str, str] | None = None) -> None:
        assert preconditions is None, "the matrix says that it has none"
        with _translated():
            self._client.delete(CLASSES[kind], name)

    async def delete_all(self, kind: Kind, labels: str) -> None:
        """It has no selector here: of this kind there is nothing else in the namespace."""
        with _translated():
            self._client.deletecollection(CLASSES[kind])

    async def wait(self, kind: Kind, name: str, condition: str) -> None:
        with _translated():
            await asyncio.to_thread(self._client.wait, CLASSES[kind], name, for_conditions=[condition])

    async def can_i(self, verb: str, kind: Kind) -> bool:
        attributes = ResourceAttributes(verb=verb, group=kind.group, resource=kind.plural, namespace=self._namespace)
        review = SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=attributes))
        with _translated():
            answer = self._client.create(review)
        return bool(answer.status is not None and answer.status.allowed)

    async def token(self, account: str) -> str:
        request = ServiceAccountToken(metadata=ObjectMeta(), spec=TokenRequestSpec(audiences=[]))
        with _translated():
            answer = self._client.create(request, account)
        return str(answer.status.token) if answer.status else ""

    async def close(self) -> None:
        self._client.close()


def _selector(text: str) -> Any:
    """Its way to say a selector: pairs of a key and an operator."""
    pairs: list[tuple[str, Any]] = []
    for term in re.findall(r"(?:\([^)]*\)|[^,(])+", text):
        if found := re.fullmatch(r"([\w.]+) (in|notin) \((.*)\)", term):
            operator = operators.in_ if found[2] == "in" else operators.not_in
            pairs.append((found[1], operator(found[3].split(","))))
        elif found := re.fullmatch(r"([\w.]+)(!?=)(.*)", term):
            pairs.append((found[1], (operators.equal if found[2] == "=" else operators.not_equal)(found[3])))
        else:
            pairs.append((term, operators.exists()))
    return pairs or None


def _body(item: Any) -> Body:
    found: Body = item.to_dict()
    return found


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ApiError as exc:
        raise Refused(str(exc.status.reason), str(exc.status.message)) from exc


def open_client(name: str, namespace: str) -> Lightkube:
    return Lightkube(namespace)
