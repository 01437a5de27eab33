"""
The API over a Storage: from an HTTP request to its answer.

One `Api` is one server's handler. It answers discovery, health and reads itself and passes writes to
whoever carries them out; without a `Writes` the API is read-only and says so.

Invariants
    every answer but a health probe's is JSON, every refusal a Status object
    a list and the watch that resumes from its resourceVersion together miss nothing
"""

import base64
import binascii
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator

from apimachinery.errors import (
    BadRequest,
    Cause,
    Expired,
    MethodNotAllowed,
    NotFound,
    Timeout,
)
from apimachinery.keys import Resource
from apimachinery.objects import JSON
from apimachinery.selectors import ALL_FIELDS, EVERYTHING
from apiserver import discovery, tables
from apiserver.definitions import Definition
from apiserver.messages import Request, Response, json_response
from apiserver.protocols import Answer, Page, Storage, Stored, Writes
from apiserver.requests import ApiRequest, Form, Verb, parse
from apiserver.scale import scale_of
from apiserver.selection import check_fields, order, rewind, selects
from apiserver.versions import presented
from apiserver.watching import watch

__all__ = ["Answer", "Api", "Page", "Storage", "Stored", "Writes"]

logger = logging.getLogger(__name__)

STREAMED_FROM = 500  # objects; kubectl and informers ask for so many at a time
STREAM_BYTES = 64 << 10

_JSON = ("content-type", "application/json")


class Api:
    """A handler for `apiserver.http.serve`."""

    def __init__(self, storage: Storage, writes: Writes | None = None, *, about: discovery.About) -> None:
        """about: what /version says."""
        self._storage = storage
        self._writes = writes
        self._about = about

    async def __call__(self, request: Request) -> Response:
        document = self.document(request)
        return await self.answer(self.asked(request), request) if document is None else document

    def document(self, request: Request) -> Response | None:
        """The answer to what is no question about objects: discovery, health, version; None for all else."""
        return discovery.answer(request, self._storage.catalogue, self._about)

    def asked(self, request: Request) -> ApiRequest:
        """What is asked of objects. Raises ApiError for what cannot be asked."""
        accept = request.headers.get("accept", "")
        return parse(request.method, request.target, self._storage.catalogue().resolve, accept)

    async def answer(self, asked: ApiRequest, request: Request) -> Response:
        """The answer to `asked`, which was read from `request`."""
        definition = self._storage.catalogue().of(asked.resource)
        if definition is None:  # it went since the request was read
            raise NotFound("the server could not find the requested resource")
        _check_verb(asked, definition)
        check_fields(definition, asked.fields)
        match asked.verb:
            case Verb.GET:
                return await self._get(asked, definition)
            case Verb.LIST:
                return await self._list(asked, definition)
            case Verb.WATCH:
                return Response(200, [_JSON], watch(self._storage, asked, definition))
        return await self._write(asked, definition, request)

    async def _get(self, asked: ApiRequest, definition: Definition) -> Response:
        found = await self._storage.get(asked.key._replace(resource=self._place_of(asked)))
        if found is None:
            raise not_found(asked.resource, asked.name)
        body = presented(self._storage.render(found.object, found.revision), definition)
        if asked.subresource == "scale":
            return json_response(200, scale_of(json.loads(body), definition))
        return Response(200, [_JSON], _formed(body, asked, definition))

    def _place_of(self, asked: ApiRequest) -> Resource:
        return self._storage.catalogue().place_of(asked.resource)

    async def _list(self, asked: ApiRequest, definition: Definition) -> Response:
        page = await self._page(asked)
        metadata: dict[str, JSON] = {"resourceVersion": str(page.revision)}
        if page.more:
            metadata["continue"] = _token(page.revision, order(page.items[-1].object.key))
        bodies = (presented(self._storage.render(item.object, item.revision), definition) for item in page.items)
        if asked.accepted.form is Form.TABLE:
            return Response(
                200, [_JSON], tables.table_of(map(json.loads, bodies), definition, asked, metadata, now=time.time())
            )
        if asked.accepted.form is Form.METADATA:
            kind, version = "PartialObjectMetadataList", f"meta.k8s.io/{asked.accepted.version}"
            bodies = (tables.metadata_of(json.loads(body), asked.accepted.version) for body in bodies)
        else:
            kind, version = definition.list_kind, definition.resource.api_version
        head = json.dumps({"kind": kind, "apiVersion": version, "metadata": metadata}, separators=(",", ":"))
        opening = head[:-1].encode() + b',"items":['
        if len(page.items) > STREAMED_FROM:
            return Response(200, [_JSON], _streamed(opening, bodies))
        return Response(200, [_JSON], b"".join((opening, b",".join(bodies), b"]}")))

    async def _page(self, asked: ApiRequest) -> Page:
        """The part of the list that is asked for, at the revision that is asked for."""
        after: tuple[str, str] | None = None
        exactly: int | None = None
        if asked.continue_token:
            exactly, after = _read_token(asked.continue_token)
        elif asked.resource_version not in ("", "0"):
            wanted = int(asked.resource_version)
            if wanted > self._storage.revision:
                raise _too_large(wanted, self._storage.revision)
            # With a limit and no match given, Kubernetes takes the version for an exact one.
            if asked.match == "Exact" or (not asked.match and asked.limit):
                exactly = wanted
        place = self._place_of(asked)
        page = await self._storage.list(place, asked.namespace, asked.labels, asked.fields, asked.limit, after)
        if exactly is None or exactly == page.revision:
            return page
        return await self._page_at(asked, exactly, after)

    async def _page_at(self, asked: ApiRequest, revision: int, after: tuple[str, str] | None) -> Page:
        place = self._place_of(asked)
        everything = await self._storage.list(place, asked.namespace, EVERYTHING, ALL_FIELDS, 0, None)
        try:
            changes = [
                change for change in self._storage.since(revision, place) if change.revision <= everything.revision
            ]
        except Expired:
            raise Expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
                if asked.continue_token
                else f"The resourceVersion for the provided list is too old: {revision}."
            ) from None
        found = [
            Stored(item, own)
            for item, own in rewind(everything.items, changes, place, asked.namespace, revision)
            if (after is None or order(item.key) > after) and selects(item, asked.labels, asked.fields)
        ]
        more = bool(asked.limit) and len(found) > asked.limit
        return Page(found[: asked.limit] if more else found, revision, more)

    async def _write(self, asked: ApiRequest, definition: Definition, request: Request) -> Response:
        if self._writes is None:
            raise MethodNotAllowed(
                f"this API is read-only: {asked.verb} of {asked.resource.collection} is done at the cluster's apiserver"
            )
        answer = await self._writes.write(asked, request)
        # RFC 9111 dropped Warning's meaning; Kubernetes uses code 299 with its own agent field.
        warnings = [("warning", f'299 - "{quoted(text)}"') for text in answer.warnings]
        if asked.subresource == "scale":
            return Response(answer.status, [_JSON, *warnings], answer.body)
        body = answer.body if answer.status >= 300 else _formed(presented(answer.body, definition), asked, definition)
        return Response(answer.status, [_JSON, *warnings], body)


async def _streamed(opening: bytes, bodies: Iterator[bytes]) -> AsyncIterator[bytes]:
    """A list in chunks, made as they are sent, so that a large one is not held a second time."""
    chunk = bytearray(opening)
    separator = b""
    for body in bodies:
        chunk += separator + body
        separator = b","
        if len(chunk) >= STREAM_BYTES:
            yield bytes(chunk)
            chunk.clear()
    chunk += b"]}"
    yield bytes(chunk)


def not_found(resource: Resource, name: str) -> NotFound:
    """Kubernetes' words for it."""
    return NotFound(f'{resource.collection} "{name}" not found', kind=resource.plural, group=resource.group, name=name)


def _check_verb(asked: ApiRequest, definition: Definition) -> None:
    is_missing = (asked.subresource == "status" and not definition.has_status) or (
        asked.subresource == "scale"
        and definition.scale is None
        and not any(below.name == "scale" for below in definition.subresources)
    )
    is_missing = is_missing or (asked.subresource == "approval" and not definition.has_approval)
    if is_missing:
        raise NotFound("the server could not find the requested resource")
    if asked.subresource == "token" and definition.has_tokens and asked.verb is not Verb.CREATE:
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    if asked.verb.is_read and asked.subresource not in ("", "status", "scale", "approval"):
        # Answering with the object would show it to somebody who may read the subresource only.
        raise NotFound("the server could not find the requested resource")
    if asked.verb not in definition.verbs:
        raise MethodNotAllowed("the server does not allow this method on the requested resource")


def _formed(body: bytes, asked: ApiRequest, definition: Definition) -> bytes:
    """One object in the form that was asked for. A Status stays what it is."""
    if asked.accepted.form is Form.OBJECT:
        return body
    value = json.loads(body)
    if value.get("kind") == "Status" and value.get("apiVersion") == "v1":
        return body
    if asked.accepted.form is Form.METADATA:
        return tables.metadata_of(value, asked.accepted.version)
    version = str((value.get("metadata") or {}).get("resourceVersion", ""))
    return tables.table_of([value], definition, asked, {"resourceVersion": version}, now=time.time())


def _token(revision: int, after: tuple[str, str]) -> str:
    value = json.dumps([revision, *after], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(value.encode()).decode().rstrip("=")


def _read_token(text: str) -> tuple[int, tuple[str, str]]:
    try:
        match json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))):
            case [int(revision), str(namespace), str(name)] if revision >= 0:
                return revision, (namespace, name)
    except (binascii.Error, ValueError):
        pass
    raise BadRequest("continue key is not valid: it was not given by this server")


def _too_large(wanted: int, current: int) -> Timeout:
    # client-go knows this answer by its reason and cause, and asks again.
    message = f"Too large resource version: {wanted}, current: {current}"
    return Timeout(
        message, retry_after_s=1, causes=[Cause("", "ResourceVersionTooLarge", "Too large resource version")]
    )


def quoted(text: str) -> str:
    """What may stand between the quotes of a header's value."""
    return "".join(c for c in text if c.isprintable() and c.isascii()).replace("\\", "\\\\").replace('"', '\\"')
