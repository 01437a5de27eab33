"""
Requests that the cluster answers: writes, and reads of what no store can hold, passed through the link.

The apiserver judges and answers; here only versions are translated. A client knows an object by the local revision, the
apiserver by its own: what the client says of a version is turned into the content that the node holds (the call's
`base`), which the hub turns into the apiserver's version if that is still the content. And the answer waits until the
store holds what was written, so that a client that reads or watches on finds its own write.

Invariants
    a precondition is never dropped: it is checked here or there, or the write is refused
    the status, the words and the warnings of an answer are the apiserver's own
    no object goes out with the cluster's version unmarked
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from urllib.parse import parse_qsl

from apimachinery.errors import ApiError, BadRequest, Conflict
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, lookup
from apiserver import protobuf
from apiserver.messages import Request, Response
from apiserver.protocols import Answer
from apiserver.requests import ApiRequest, Verb
from link.frames import CALL_S, CallHead
from metamanager.cloud import JSON_TYPE, MARK, Answered, Cloud, ask, mark_versions
from metamanager.feed import FeedClosed
from metamanager.reads import Reads
from metamanager.store import Store

OWN_WRITE_S = 2.0  # until the store holds what was written; after that the answer has a marked version
JSON_PATCH = "application/json-patch+json"
_VERSION = "/metadata/resourceVersion"


class Passing:
    """The way to the cluster's apiserver for one request."""

    def __init__(self, store: Store, cloud: Cloud, reads: Reads, node: str) -> None:
        """node: this node's name."""
        self._store = store
        self._cloud = cloud
        self._reads = reads
        self._node = node

    async def read(self, request: Request) -> Response:
        """The cluster's own answer to a GET. Raises ApiError where it cannot be asked."""
        options = dict(parse_qsl(request.target.partition("?")[2]))
        if options.get("follow", "").lower() in ("1", "true") or options.get("watch", "").lower() in ("1", "true"):
            raise BadRequest("what has no end (follow, watch) is not passed on to the cluster: ask there")
        accept = request.headers.get("accept", "") or JSON_TYPE
        answer = await ask(self._cloud, _head(request, "", accept))
        return as_response(answer)

    async def write(self, asked: ApiRequest, http: Request, timeout_s: float = CALL_S) -> Answer:
        """Make a write in the cluster. Raises ApiError: Away where nothing was done, Lost where it may have been."""
        content_type, body, base = await self._translated(asked, http)
        head = _head(http, content_type, JSON_TYPE)._replace(base=base)
        answer = await ask(self._cloud, head, body, timeout_s)
        status, shown = answer.head.status, answer.body
        if 200 <= status < 300:
            shown = await self._seen(asked, answer)
        return Answer(status, shown, answer.head.warnings)

    async def _translated(self, asked: ApiRequest, http: Request) -> tuple[str, bytes, str]:
        """The body as the apiserver is to get it: media type, bytes, and the content that the write is based on."""
        content_type, body = http.headers.get("content-type", ""), http.body
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type == protobuf.MEDIA_TYPE and body:
            content_type, body = JSON_TYPE, json.dumps(protobuf.decode(body)).encode()
        if asked.verb not in (Verb.UPDATE, Verb.PATCH, Verb.DELETE) or not body.strip():
            return content_type, body, ""
        try:
            value = json.loads(body)
        except ValueError:
            return content_type, body, ""  # YAML, or nothing that can be read: the apiserver's to say
        holder, place = _version_in(value, asked.verb, media_type)
        version = str(holder[place]) if holder is not None and holder.get(place) else ""
        if holder is None or not version.isdecimal():
            return content_type, body, ""
        if int(version) >= MARK:
            holder[place] = str(int(version) - MARK)
            return content_type, json.dumps(value).encode(), ""
        base = await self._base(asked, version)
        if media_type == JSON_PATCH:
            value = [each for each in value if each is not holder]
        else:
            del holder[place]
        return content_type, json.dumps(value).encode(), base

    async def _base(self, asked: ApiRequest, version: str) -> str:
        """The content, as a revision, that a local version stands for. Raises Conflict where it is held no more."""
        look = await self._store.look(asked.key)
        if look.held is None or look.seen is None or look.seen.revision != int(version):
            raise conflict(asked.key)
        return look.held.object.version.revision

    async def _seen(self, asked: ApiRequest, answer: Answered) -> bytes:
        """The body of a success with the version that this API's clients know the object by."""
        try:
            value = json.loads(answer.body)
        except ValueError:
            return answer.body
        if not isinstance(value, dict):
            return answer.body
        name = lookup(value, "metadata.name") or asked.name
        is_object = "resourceVersion" in (value.get("metadata") or {})
        if not isinstance(name, str) or not name:
            return json.dumps(mark_versions(value)).encode()
        key = asked.key._replace(name=name)
        if asked.dry_run:
            seen = (await self._store.look(key)).seen
            if seen is None or not is_object:
                return json.dumps(mark_versions(value)).encode()
            return _as_held(value, seen.revision)  # nothing changed, so neither did the revision
        if asked.verb is Verb.DELETE and not is_object:
            await self._until_gone(key)
        elif is_object and (answer.head.revision or lookup(value, "metadata.deletionTimestamp")):
            revision = await self._until_held(key, answer.head.revision, value)
            if revision is not None:
                return _as_held(value, revision)
        return json.dumps(mark_versions(value)).encode()

    async def _until_held(self, key: ObjectKey, revision: str, value: Mapping[str, JSON]) -> int | None:
        """The local revision at which the store came to hold this content; None where it does not in time, or ever."""
        is_leaving = bool(lookup(value, "metadata.deletionTimestamp"))
        async for _ in _looks(self._store):
            look = await self._store.look(key)
            if look.held is not None and look.held.object.version.revision == revision:
                assert look.seen is not None, "what is held is seen"
                return look.seen.revision
            if look.held is None and (is_leaving or not self._will_be_held(key, value)):
                return None  # not here, or the write took the last finalizer away
        return None

    def _will_be_held(self, key: ObjectKey, value: Mapping[str, JSON]) -> bool:
        if self._reads.is_own(key.resource, key.namespace):
            return self._node in (key.name, lookup(value, "spec.nodeName"))
        return self._reads.covers(key)

    async def _until_gone(self, key: ObjectKey) -> None:
        async for _ in _looks(self._store):
            if (await self._store.look(key)).seen is None:
                return


def _as_held(value: dict[str, JSON], revision: int) -> bytes:
    """The apiserver's object as a read here shows it: with the local version, without what is not pushed to nodes."""
    value["metadata"]["resourceVersion"] = str(revision)
    value["metadata"].pop("managedFields", None)
    return json.dumps(value).encode()


def caller(request: Request) -> str:
    """On whose behalf a request is made, as the link says it: "" for the node itself."""
    return "" if request.user is None else request.user.name


def conflict(key: ObjectKey) -> ApiError:
    """The apiserver's words for a write that is based on an older state."""
    return Conflict(
        f'Operation cannot be fulfilled on {key.resource.collection} "{key.name}": the object has been modified; '
        "please apply your changes to the latest version and try again",
        kind=key.resource.plural,
        group=key.resource.group,
        name=key.name,
    )


def as_response(answer: Answered) -> Response:
    """An answer of the cluster's for a client here: as it is, but for the versions of objects, which are marked."""
    head, body = answer.head, answer.body
    if head.content_type.startswith(JSON_TYPE) and b'"resourceVersion"' in body:
        with_marks = json.dumps(mark_versions(json.loads(body)), separators=(",", ":"), ensure_ascii=False)
        body = with_marks.encode()
    headers = [("content-type", head.content_type or JSON_TYPE)]
    if head.retry_after_s:
        headers.append(("retry-after", str(max(1, round(head.retry_after_s)))))
    return Response(head.status, headers, body)


async def _looks(store: Store) -> AsyncIterator[None]:
    """Now, and after each change of the store, for OWN_WRITE_S."""
    ends_at = asyncio.get_running_loop().time() + OWN_WRITE_S
    while True:
        revision = store.feed.revision
        yield
        try:
            async with asyncio.timeout_at(ends_at):
                await store.feed.wait(revision)
        except (TimeoutError, FeedClosed):
            return


def _head(request: Request, content_type: str, accept: str) -> CallHead:
    return CallHead(
        request.method,
        request.target,
        caller(request),
        content_type,
        accept,
        agent=request.headers.get("user-agent", ""),
    )


def _version_in(value: JSON, verb: Verb, media_type: str) -> tuple[dict[str, JSON] | None, str]:
    """Where a write says on which version it is based: the mapping, and the name in it."""
    if media_type == JSON_PATCH:
        operations = value if isinstance(value, list) else []
        found = [each for each in operations if isinstance(each, dict) and each.get("path") == _VERSION]
        return (found[0], "value") if found else (None, "")
    if not isinstance(value, dict):
        return None, ""
    holder = value.get("preconditions" if verb is Verb.DELETE else "metadata")
    return (holder, "resourceVersion") if isinstance(holder, dict) else (None, "")
