"""
A watch: the changes of a selection as a stream of JSON lines, for one client.

The stream is fed from the store's window by revision, so a client that reads slowly costs nothing but
its place in the sequence; one that falls out of the window is told 410 and lists again.

Invariants
    what the client sees of an object is a subsequence of its states, in order, within its selection
    the resourceVersion on each event is one to resume from without missing anything
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator

from apimachinery.errors import ApiError
from apimachinery.events import Change, EventType
from apimachinery.objects import JSON, Object
from apiserver import tables
from apiserver.definitions import Definition
from apiserver.protocols import Page, Storage
from apiserver.requests import ApiRequest, Form
from apiserver.selection import selects
from apiserver.versions import presented

BOOKMARK_S = 60.0  # kube-apiserver's period is about a minute
TIMEOUT_S = 2700  # where the client asks for none; kube-apiserver takes 1800 to 3600 at random
CHUNK_BYTES = 32 << 10  # events that are ready together are written together, up to this
LONG_BYTES = 2 * CHUNK_BYTES  # of one event, that it goes in pieces
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


async def watch(storage: Storage, asked: ApiRequest, definition: Definition) -> AsyncIterator[bytes]:
    """
    The stream's bytes, in chunks of whole lines or, of a long one, of its pieces. Ends at the timeout, or after an
    ERROR event. Everybody else has a turn after each chunk: the socket may take megabytes at once.
    """
    lines = _Lines(storage, asked, definition)
    place = storage.catalogue().place_of(asked.resource)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + (asked.timeout_s or TIMEOUT_S)
    bookmark_at = loop.time() + BOOKMARK_S
    try:
        if _begins_with_state(asked):
            page = await storage.list(place, asked.namespace, asked.labels, asked.fields, limit=0, after=None)
            revision = page.revision
            for chunk in _chunked(lines.state(page)):
                yield chunk
                await asyncio.sleep(0)
            if asked.initial_events and asked.bookmarks:
                yield lines.bookmark(revision, {INITIAL_EVENTS_END: "true"})
        else:
            revision = int(asked.resource_version or storage.revision)
        while True:
            changes, revision = storage.since(revision, place), storage.revision
            for chunk in _chunked(lines.changes(changes)):
                yield chunk
                await asyncio.sleep(0)
            if storage.catalogue().of(asked.resource) is None:
                return  # the definition was deleted
            now = loop.time()
            due_at = min(bookmark_at, ends_at) if asked.bookmarks else ends_at
            if asked.bookmarks and now >= due_at:
                bookmark_at = now + BOOKMARK_S
                due_at = min(bookmark_at, ends_at)
                yield lines.bookmark(revision)
            if now >= ends_at:
                return
            try:
                async with asyncio.timeout_at(due_at):
                    await storage.wait(revision, place)
            except TimeoutError:
                continue
    except ApiError as exc:
        yield _line("ERROR", json.dumps(exc.status(), separators=(",", ":")).encode())


def _begins_with_state(asked: ApiRequest) -> bool:
    if asked.initial_events is not None:
        return asked.initial_events
    return asked.resource_version in ("", "0")


Event = tuple[EventType, bytes]
"""And the object's JSON."""


class _Lines:
    """Events, and bookmarks as lines, in the form the client wants them."""

    def __init__(self, storage: Storage, asked: ApiRequest, definition: Definition) -> None:
        self._storage = storage
        self._asked = asked
        self._definition = definition
        self._place = storage.catalogue().place_of(asked.resource)
        self._first = True

    def state(self, page: Page) -> Iterator[Event]:
        for item in page.items:
            yield self._event(EventType.ADDED, item.object, item.revision)

    def changes(self, changes: Iterable[Change]) -> Iterator[Event]:
        asked = self._asked
        for change in changes:
            key = change.object.key
            if key.resource != self._place or (asked.namespace and key.namespace != asked.namespace):
                continue
            previous = change.previous
            if previous is not None and not selects(previous, asked.labels, asked.fields):
                previous = None  # as if it had not been there
            if change.type is not EventType.DELETED and selects(change.object, asked.labels, asked.fields):
                kind = EventType.ADDED if previous is None else EventType.MODIFIED
                yield self._event(kind, change.object, change.revision)
            elif previous is not None:
                # The client gets the state it knew, at the revision at which it left the selection.
                yield self._event(EventType.DELETED, previous, change.revision)

    def bookmark(self, revision: int, annotations: dict[str, str] | None = None) -> bytes:
        if self._asked.accepted.form is Form.TABLE:
            return _line(EventType.BOOKMARK, self._table([], revision))
        metadata: dict[str, JSON] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        resource = self._asked.resource
        value = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        return _line(EventType.BOOKMARK, json.dumps(value, separators=(",", ":")).encode())

    def _event(self, kind: EventType, item: Object, revision: int) -> Event:
        body = presented(self._storage.render(item, revision), self._definition)
        if self._asked.accepted.form is Form.METADATA:
            body = tables.metadata_of(json.loads(body), self._asked.accepted.version)
        elif self._asked.accepted.form is Form.TABLE:
            body = self._table([json.loads(body)], revision)
        return kind, body

    def _table(self, values: list[JSON], revision: int) -> bytes:
        first, self._first = self._first, False
        metadata = {"resourceVersion": str(revision)}
        return tables.table_of(values, self._definition, self._asked, metadata, now=time.time(), with_columns=first)


_END = b"}\n"


def _begun(kind: str) -> bytes:
    return b'{"type":"%s","object":' % kind.encode()


def _line(kind: str, body: bytes) -> bytes:
    return b"".join((_begun(kind), body, _END))


def _chunked(events: Iterator[Event]) -> Iterator[bytes]:
    """
    Events as lines, joined up to CHUNK_BYTES, so that a burst costs few writes and no more memory than that. A line
    that is longer by far comes in pieces, and is never put together.
    """
    pending: list[bytes] = []
    size = 0
    for kind, body in events:
        if len(body) <= LONG_BYTES:
            pending.append(_line(kind, body))
            size += len(pending[-1])
        else:
            yield b"".join((*pending, _begun(kind)))
            for start in range(0, len(body), CHUNK_BYTES):
                yield body[start : start + CHUNK_BYTES]
            pending, size = [_END], len(_END)
        if size >= CHUNK_BYTES:
            yield b"".join(pending)
            pending, size = [], 0
    if pending:
        yield b"".join(pending)
