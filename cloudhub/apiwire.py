"""
How requests to a Kubernetes API and its answers are spelled: paths, list items, watch lines, Status objects.

Invariants
    no name or namespace, whoever it comes from, makes a path lead elsewhere
    an object reads the same whether a list, a watch or a get brought it

Pure; the shell is cloudhub/apiclient.py.
"""

import json
import urllib.parse
from collections.abc import Mapping

from apimachinery.errors import ApiError, BadRequest, Cause, Unavailable, from_status
from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Resource
from apimachinery.objects import JSON, Object, from_json


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


def object_of(resource: Resource, value: dict[str, JSON]) -> Object:
    """The object for a body, with its resourceVersion as its version's revision. Changes `value`."""
    # The items of a list of a built-in kind do not say what they are, those of a watch do; versions are
    # digests of bodies, so both must read alike.
    value.setdefault("apiVersion", resource.api_version)
    value.setdefault("kind", resource.kind)
    return from_json(resource, value)


def event_of(resource: Resource, line: bytes) -> WatchEvent:
    """The event in one line of a watch. Raises the error it tells; Unavailable where it makes no sense."""
    try:
        value = json.loads(line)
        kind, body = value["type"], value["object"]
        version = str((body.get("metadata") or {}).get("resourceVersion") or "")
        if kind == "ERROR":
            raise _error_of(int(body.get("code") or 500), body)
        if kind == EventType.BOOKMARK:
            return WatchEvent(EventType.BOOKMARK, None, version)
        return WatchEvent(EventType(kind), object_of(resource, body), version)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        # Without the cause: a JSON error quotes its document.
        raise Unavailable(f"the watch of {resource.collection} sent what is no event") from None


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
