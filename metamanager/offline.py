"""
Writes that a node may make while the cloud is away: what is its own to say.

The status of its Node and of the Pods bound to it, the renewal of a Lease that is already held, and Events. They are
kept in the store, seen at once, and go up once the cloud is back (metamanager.deferred). Everything else is the
cluster's to decide, and refused at once.

Invariants
    an answer that says success was committed before
    a precondition (resourceVersion, uid) is checked against what clients see
"""

import json
import time
import uuid
from collections.abc import Mapping

from apimachinery.errors import AlreadyExists, ApiError, BadRequest, Unavailable
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, canonical, lookup
from apimachinery.resources import EVENTS, LEASES, NODES, PODS
from apiserver import metadata, protobuf, strategic
from apiserver.definitions import Catalogue
from apiserver.handlers import not_found
from apiserver.messages import Request
from apiserver.metadata import Facts, metadata_of
from apiserver.protocols import Answer
from apiserver.requests import ApiRequest, Verb
from metamanager.overlay import LocalWrite
from metamanager.passing import caller, conflict
from metamanager.records import Look
from metamanager.store import Store
from metamanager.writerows import TooManyWrites

TRIES = 5  # of a patch against an object that changes meanwhile, as kube-apiserver does
MAX_LOCAL_EVENTS = 256  # as many as of the node's own (metamanager.outbox); the oldest make room
EVENT_KINDS = frozenset((EVENTS, Resource("events.k8s.io", "v1", "events", "Event", True)))


def is_nodes_own(asked: ApiRequest, node: str) -> bool:
    """Whether a write is one that this node may make by itself, as far as the request alone tells."""
    if asked.resource in EVENT_KINDS:
        return asked.verb in (Verb.CREATE, Verb.UPDATE, Verb.PATCH) and not asked.subresource
    if asked.verb not in (Verb.UPDATE, Verb.PATCH):
        return False
    if asked.resource == LEASES:
        return not asked.subresource
    if asked.subresource != "status":
        return False
    return asked.resource == PODS or (asked.resource == NODES and asked.name == node)


class OfflineWrites:
    """Takes such writes into the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, asked: ApiRequest, http: Request, catalogue: Catalogue, why: str) -> Answer:
        """
        Make a write that is_nodes_own().

        why: why the cloud cannot make it, for who is refused. Raises ApiError: Unavailable where it is not the node's
        to make after all.
        """
        if asked.verb is Verb.CREATE:
            return await self._create(asked, http, catalogue)
        for _ in range(TRIES):
            look = await self._store.look(asked.key)
            if look.seen is None:
                if asked.resource in EVENT_KINDS:
                    raise not_found(asked.resource, asked.name)  # a recorder then makes a new one
                raise Unavailable(f'{asked.resource.collection} "{asked.name}" is not on this node, and {why}')
            before = _with_version(look)
            after = _changed(before, asked, http)
            if asked.resource == LEASES and not _is_renewal(before, after):
                raise Unavailable(f"a Lease is taken and given where all can see it, and {why}")
            if after == before:
                # As in the cluster: no new version and no event, or who answers each event by a write would never end.
                return Answer(200, json.dumps(before).encode())
            write = _write_of(asked, look, after, caller(http))
            if asked.dry_run:
                return Answer(200, json.dumps(after).encode())
            revision = await self._keep(write, look.seen.revision)
            if revision is not None:
                seen = (await self._store.look(asked.key)).seen
                return Answer(200, _shown(after if seen is None else seen.object.parse(), revision))
        raise conflict(asked.key)

    async def _create(self, asked: ApiRequest, http: Request, catalogue: Catalogue) -> Answer:
        definition = catalogue.of(asked.resource)
        assert definition is not None, "parse resolved it"
        value = _decoded(http)
        resource = asked.resource
        value |= {"apiVersion": resource.api_version, "kind": resource.kind}
        if (metadata_of(value).get("namespace") or asked.namespace) != asked.namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        metadata.stamp_new(value, definition, asked.namespace, Facts(now, str(uuid.uuid4()), uuid.uuid4().hex[:5]))
        if causes := metadata.check(value, definition):
            raise metadata.invalid(resource, str(metadata_of(value).get("name", "")), causes)
        about = lookup(value, "involvedObject.namespace") or lookup(value, "regarding.namespace")
        if about and about != asked.namespace:
            raise BadRequest(f"involvedObject.namespace: it is {about}, and the Event is in {asked.namespace}")
        key = asked.key._replace(name=str(metadata_of(value)["name"]))
        if asked.dry_run:
            return Answer(201, json.dumps(value).encode())
        await self._make_room()
        write = LocalWrite(0, key, "", metadata_of(value)["uid"], True, caller(http), 0, _now_ms(), canonical(value))
        revision = await self._keep(write, None)
        if revision is None:
            raise _exists(key)
        return Answer(201, _shown(value, revision))

    async def _make_room(self) -> None:
        """The oldest Events make room for new ones."""
        events = [write for write in await self._store.local_writes() if write.key.resource in EVENT_KINDS]
        for write in events[: max(0, len(events) + 1 - MAX_LOCAL_EVENTS)]:
            await self._store.settle_locally(write.seq)

    async def _keep(self, write: LocalWrite, expected: int | None) -> int | None:
        try:
            return await self._store.write_locally(write, expected)
        except TooManyWrites:
            raise Unavailable("too many writes wait for the cloud on this node") from None


def _write_of(asked: ApiRequest, look: Look, after: Mapping[str, JSON], user: str) -> LocalWrite:
    """What is kept of the object as it is to be."""
    assert look.seen is not None, "there is something to change"
    made = next((write for write in look.writes.values() if write.creates), None)
    body = dict(after)
    body["metadata"] = {name: value for name, value in metadata_of(body).items() if name != "resourceVersion"}
    now_ms = _now_ms()
    if look.held is None:
        assert made is not None, "what is seen and not held was made here"
        return made._replace(user=user, at_ms=now_ms, value=canonical(body))
    held = look.held.object.parse()
    if asked.subresource:
        kind, now, was = held.get("kind"), body.get(asked.subresource) or {}, held.get(asked.subresource) or {}
        value = strategic.diff({"kind": kind, "status": was}, {"kind": kind, "status": now})
    else:
        value = strategic.diff(held, body)
    if asked.resource == LEASES:  # whose renewal it is, for when it goes up
        value["spec"] = (value.get("spec") or {}) | {"holderIdentity": lookup(body, "spec.holderIdentity")}
    uid = look.held.object.version.uid
    return LocalWrite(0, asked.key, asked.subresource, uid, False, user, 0, now_ms, canonical(value))


def _changed(before: dict[str, JSON], asked: ApiRequest, http: Request) -> dict[str, JSON]:
    """The object after a PUT or PATCH; of a subresource, only that is changed."""
    if asked.verb is Verb.UPDATE:
        after = _decoded(http)
    else:
        from apiserver import patches  # brings jsonpatch; most nodes never need it

        after = patches.apply(before, http.body, http.headers.get("content-type", ""), is_custom=False)
    _check(after, before, asked)
    if asked.subresource:
        return before | {asked.subresource: after.get(asked.subresource) or {}}
    return after


def _check(after: dict[str, JSON], before: Mapping[str, JSON], asked: ApiRequest) -> None:
    """That the body is the object that the URL names, in the state that its client knows; who it is stays as it is."""
    resource = asked.resource
    for name, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        if after.setdefault(name, expected) != expected:
            raise BadRequest(f"the {name} in the data ({after[name]}) does not match the expected one ({expected})")
    given, held = metadata_of(after), metadata_of(before)
    if given.get("name") not in (None, "", asked.name):
        raise BadRequest(f"the name of the object ({given['name']}) does not match the name on the URL ({asked.name})")
    if given.get("resourceVersion") not in (None, "", held.get("resourceVersion")):
        raise conflict(asked.key)
    if given.get("uid") not in (None, "", held.get("uid")):
        raise conflict(asked.key)
    kept = ("name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation")
    given.update({name: held[name] for name in kept if name in held})
    given.pop("managedFields", None)


def _is_renewal(before: Mapping[str, JSON], after: Mapping[str, JSON]) -> bool:
    """Whether whoever holds the Lease goes on holding it."""
    holder = lookup(before, "spec.holderIdentity")
    return bool(holder) and holder == lookup(after, "spec.holderIdentity")


def _decoded(http: Request) -> dict[str, JSON]:
    media_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(http.body)
    try:
        value = json.loads(http.body)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"the object provided is unrecognized: it is not JSON: {exc}") from None
    if not isinstance(value, dict):
        raise BadRequest("the object provided is unrecognized: it must be a JSON object")
    return value


def _with_version(look: Look) -> dict[str, JSON]:
    assert look.seen is not None, "there is something to show"
    value = look.seen.object.parse()
    metadata_of(value)["resourceVersion"] = str(look.seen.revision)
    return value


def _shown(value: dict[str, JSON], revision: int) -> bytes:
    metadata_of(value)["resourceVersion"] = str(revision)
    return json.dumps(value).encode()


def _exists(key: ObjectKey) -> ApiError:
    resource = key.resource
    return AlreadyExists(
        f'{resource.collection} "{key.name}" already exists', kind=resource.plural, group=resource.group, name=key.name
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
