"""
How requests to a Kubernetes API and its answers are spelled: paths, list items, watch lines, Status objects.

Invariants
    no name or namespace, whoever it comes from, makes a path lead elsewhere
    an object reads the same whether a list or a watch brought it

Pure; the shell is cloudhub/apiclient.py.
"""

import json
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.errors import ApiError, BadRequest, Cause, Unavailable, from_status
from apimachinery.events import EventType
from apimachinery.keys import Resource
from apimachinery.objects import JSON
from cloudhub.reading import Sent, decoded, read_line, read_page, typed


def segment(text: str) -> str:
    """One part of a path. Names may come from nodes. Raises BadRequest for what cannot be one."""
    if text in ("", ".", ".."):
        raise BadRequest(f'"{text}" is not a name')
    return urllib.parse.quote(text, safe=":")


def path_of(resource: Resource, namespace: str = "", name: str = "", subresource: str = "") -> str:
    """The request path; an empty namespace of a namespaced resource means all of them. Raises BadRequest."""
    return resource.path(segment(namespace) if namespace else "", segment(name) if name else "", subresource)


def selection(labels: str, fields: str) -> dict[str, str]:
    """Query parameters for selectors, without those that are empty."""
    return {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}


class Event(NamedTuple):
    """One line of a watch, with the object as it was sent: see apimachinery.events.WatchEvent."""

    type: EventType
    object: Sent | None
    resume_version: str


class Page(NamedTuple):
    """A part of a list, all of it at one resource version."""

    objects: list[Sent]
    resource_version: str
    token: str = ""
    """How to ask for the next part; "" when this is the last."""


class Lines:
    """Lines out of the chunks that they come in; one of megabytes is put together once, and not for each chunk."""

    def __init__(self, most: int) -> None:
        """most: bytes of one line that are too many."""
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0

    def take(self, chunk: bytes) -> list[bytes]:
        """Lines that are whole with this chunk, without those that are empty."""
        first, *rest = chunk.split(b"\n")
        self._pieces.append(first)
        self._size += len(first)
        if not rest:
            return []
        whole = [b"".join(self._pieces), *rest[:-1]]
        self._pieces, self._size = [rest[-1]], len(rest[-1])
        return [line for line in whole if line]

    @property
    def is_too_long(self) -> bool:
        return self._size > self._most

    @property
    def has_rest(self) -> bool:
        """Whether there is more than blanks of a line that has no end."""
        return bool(b"".join(self._pieces).strip())


_TYPES = {each.value: each for each in EventType}


def event_of(resource: Resource, line: bytes) -> Event:
    """The event in one line of a watch. Raises the error it tells; Unavailable where it makes no sense."""
    try:
        read = read_line(line)
        kind = _TYPES.get(read.type)
        if kind is None or kind is EventType.BOOKMARK:
            body = {name: decoded(raw) for name, raw in read.object.items()}
            if read.type == "ERROR":
                raise _error_of(int(body.get("code") or 500), body)
            version = str((body.get("metadata") or {}).get("resourceVersion") or "")
            return Event(EventType(read.type), None, version)
        item = Sent(resource, typed(resource, read.object))
        return Event(kind, item, item.version.revision)
    except (ValueError, TypeError, AttributeError, RecursionError):
        # Without the cause: a JSON error quotes its document.
        raise Unavailable(f"the watch of {resource.collection} sent what is no event") from None


def page_of(resource: Resource, content: bytes) -> Page:
    """A page of a list. Raises Unavailable where it is none, BadRequest where what it lists are no objects."""
    try:
        read = read_page(content)
        objects = [Sent(resource, typed(resource, members)) for members in read.items or ()]
    except (ValueError, RecursionError):
        raise Unavailable(f"what should be the list of {resource.collection} is none") from None
    return Page(objects, read.metadata.resource_version, read.metadata.token)


def error_in(code: int, body: bytes, retry_after: str, where: str) -> ApiError:
    """
    The error that an answer stands for.

    retry_after: that header, "" without one. where: method and path, for an answer that does not explain itself.
    """
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        status = {"message": f"{where}: {code}"}
    return _error_of(code, status, int(retry_after) if retry_after.isdecimal() else None)


def _error_of(code: int, status: Mapping[str, JSON], retry_after_s: int | None = None) -> ApiError:
    details = status.get("details")
    details = details if isinstance(details, Mapping) else {}
    seconds = details.get("retryAfterSeconds")
    error = from_status(
        code,
        str(status.get("reason") or ""),
        str(status.get("message") or ""),
        seconds if isinstance(seconds, int) and seconds > 0 else retry_after_s,
    )
    # `name` tells a missing object, which has one, from a path that is not served, which has none.
    error.name = str(details.get("name") or "")
    error.kind = str(details.get("kind") or "")
    error.group = str(details.get("group") or "")
    causes = details.get("causes")
    error.causes = tuple(
        Cause(*(str(cause.get(field) or "") for field in ("field", "reason", "message")))
        for cause in (causes if isinstance(causes, list) else ())
        if isinstance(cause, Mapping)
    )
    return error
