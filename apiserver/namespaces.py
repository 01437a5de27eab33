"""
What every namespace has: the ServiceAccount `default` and the ConfigMap `kube-root-ca.crt`, with which a pod
trusts the server.

Follows the storage as the collector does, so that they come back when somebody deletes them, and do not come
in a namespace that is going.
"""

import logging
from collections.abc import Iterator

from apimachinery.errors import ApiError, Expired
from apimachinery.events import EventType
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON
from apimachinery.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from apiserver import plans
from apiserver.admission import Admission
from apiserver.collector import Source
from apiserver.metadata import metadata_of
from apiserver.plans import Plan, Put, Remove, View
from apiserver.requests import ApiRequest, Verb
from apiserver.writes import facts

logger = logging.getLogger(__name__)

ROOT_CA = "kube-root-ca.crt"  # k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher
_DESCRIPTION = {
    "kubernetes.io/description": "Contains a CA bundle that can be used to verify this server, for pods to use."
}


async def furnish(storage: Source, ca_pem: bytes) -> None:
    """Every namespace that is there now."""
    for item in storage.view().all_of(NAMESPACES):
        await _furnish(storage, item.key.name, ca_pem)


async def follow(storage: Source, ca_pem: bytes) -> None:
    """Every namespace that comes, until cancelled; what goes missing is made again."""
    revision = storage.revision
    while True:
        await furnish(storage, ca_pem)
        while True:
            await storage.wait(revision)
            try:
                changes = storage.since(revision)
            except Expired:
                revision = storage.revision
                break
            revision = changes[-1].revision
            touched = {_namespace_of(change.object.key, change.type) for change in changes}
            for name in sorted(touched - {""}):
                await _furnish(storage, name, ca_pem)


def _namespace_of(key: ObjectKey, kind: EventType) -> str:
    """The namespace to look after when this object changed; "" for none."""
    if key.resource == NAMESPACES and kind is not EventType.DELETED:
        return key.name
    return key.namespace if (key.resource, key.name) in ((SERVICE_ACCOUNTS, "default"), (CONFIG_MAPS, ROOT_CA)) else ""


async def _furnish(storage: Source, namespace: str, ca_pem: bytes) -> None:
    if not _plan(storage.view(), namespace, ca_pem).writes:
        return
    try:
        await storage.commit(lambda view: _plan(view, namespace, ca_pem))
    except ApiError as exc:  # the next change of these tries again
        logger.warning("namespace not furnished", extra={"namespace": namespace, "error": str(exc)})


def _plan(view: View, namespace: str, ca_pem: bytes) -> Plan:
    """Make what is missing; nothing where the namespace is going or gone."""
    holder = view.get(ObjectKey(NAMESPACES, "", namespace))
    if holder is None or metadata_of(holder.parse()).get("deletionTimestamp"):
        return Plan(200, ())
    writes: list[Put | Remove] = []
    for key, wanted in _wanted(namespace, ca_pem):
        found = view.get(key)
        if found is None:
            asked = ApiRequest(verb=Verb.CREATE, resource=key.resource, namespace=namespace)
            writes += plans.create(view, asked, wanted, facts(), Admission()).writes
        elif "data" in wanted and (body := found.parse()).get("data") != wanted["data"]:
            writes.append(Put(key, body | {"data": wanted["data"]}))
    return Plan(200, tuple(writes))


def _wanted(namespace: str, ca_pem: bytes) -> Iterator[tuple[ObjectKey, dict[str, JSON]]]:
    yield ObjectKey(SERVICE_ACCOUNTS, namespace, "default"), {"metadata": {"name": "default"}}
    metadata = {"name": ROOT_CA, "annotations": dict(_DESCRIPTION)}
    yield ObjectKey(CONFIG_MAPS, namespace, ROOT_CA), {"metadata": metadata, "data": {"ca.crt": ca_pem.decode()}}
