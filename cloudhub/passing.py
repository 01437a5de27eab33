"""
Requests of somebody at the edge, as they are passed on to the apiserver, and what comes back.

A node has no resourceVersions of the apiserver's: it holds objects as they are projected, and says in `base` which
state of one its caller saw. So the object is read, and where a node would see it as `base` says, the request goes on
with the resourceVersion that the object has now: what has changed since then the caller could not see. Between that
reading and the write the apiserver watches over it, as over any other writer.

Invariants
    what is passed on has an end, and names a path below the apiserver's root
    with a base, nothing is changed that a node would see otherwise than as the base

Pure state: no clock, no I/O. The shell is cloudhub/calls.py.
"""

import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import NamedTuple

from apimachinery.errors import ApiError, BadRequest, Conflict, MethodNotAllowed, UnsupportedMediaType
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON, from_json, lookup
from cloudhub.projection import project, restored
from link.frames import AnswerHead, CallHead

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_ENDLESS = frozenset({"exec", "attach", "portforward", "proxy"})
_SAFE = re.compile(r"/[!-~]*")
_HEADER = re.compile(r"[ -~]*")
_FALSE = frozenset({"0", "false"})  # apimachinery's conversion takes anything else for true, "no" and "f" as well
_SUBRESOURCES_OF_NAMESPACES = frozenset({"status", "finalize"})

JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
_MERGING = frozenset({"application/merge-patch+json", "application/strategic-merge-patch+json", APPLY_PATCH})


class Target(NamedTuple):
    """What a path means."""

    group: str
    version: str
    namespace: str
    plural: str
    name: str
    subresource: str


def checked(head: CallHead) -> Target | None:
    """What is asked for; None where that is no resource, as of /version. Raises ApiError for what is not passed on."""
    if head.method not in METHODS:
        raise MethodNotAllowed(f"{head.method} is not passed on; use one of {', '.join(sorted(METHODS))}")
    if not all(_HEADER.fullmatch(text) for text in (head.content_type, head.accept, head.agent)):
        raise BadRequest("a header may have printable ASCII only")
    path, _, query = head.target.partition("?")
    if not _SAFE.fullmatch(head.target) or "#" in head.target:
        raise BadRequest("the request's target must be an absolute path, percent-encoded")
    parts = [urllib.parse.unquote(part) for part in path.split("/")[1:]]
    if "" in parts[:-1] or any(part in (".", "..") or "/" in part for part in parts):
        raise BadRequest(f'"{path}" is not a path')
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if name in ("watch", "follow") and value.lower() not in _FALSE:
            raise BadRequest(
                f"{name} has no end: it is not passed on to the cluster; what is held here is watched here"
            )
    target = _target(parts)
    if target is not None and (target.plural == "watch" or target.subresource.partition("/")[0] in _ENDLESS):
        what = target.subresource if target.plural != "watch" else "watch"
        raise BadRequest(f"{what} is a connection of its own: it is not passed on to the cluster")
    return target


def _target(parts: list[str]) -> Target | None:
    if parts[:1] == ["api"] and len(parts) > 2:
        group, (version, *rest) = "", parts[1:]
    elif parts[:1] == ["apis"] and len(parts) > 3:
        group, version, *rest = parts[1:]
    else:
        return None
    namespace = ""
    is_namespace = rest[0] == "namespaces" and (len(rest) < 3 or rest[2] in _SUBRESOURCES_OF_NAMESPACES)
    if rest[0] == "namespaces" and not is_namespace:
        namespace, rest = rest[1], rest[2:]
    plural, name, *subresource = [*rest, ""] if len(rest) == 1 else rest
    return Target(group, version, namespace, plural, name, "/".join(subresource))


_VERBS = {"PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def verb_of(head: CallHead) -> str:
    """What a call that has a base does to its object. Raises BadRequest."""
    if head.method not in _VERBS:
        raise BadRequest(f"{head.method} cannot have a precondition")
    return _VERBS[head.method]


def amended(head: CallHead, body: bytes, target: Target | None, live: Mapping[str, JSON], resource: Resource) -> bytes:
    """
    The body with which a call that has a base goes on.

    live: the object as the apiserver has it, in the resource's version. resource: of which it is.
    Raises Conflict where a node would not see it as the base; UnsupportedMediaType where that cannot be said.
    """
    verb_of(head)
    item = project(from_json(resource, live))
    version = lookup(live, "metadata.resourceVersion")
    assert target is not None, "a base is of an object"
    if item.version.revision != head.base:
        group = f".{resource.group}" if resource.group else ""
        raise Conflict(
            f'Operation cannot be fulfilled on {resource.plural}{group} "{target.name}": the object has been modified; '
            "please apply your changes to the latest version and try again",
            name=target.name,
            group=resource.group,
            kind=resource.plural,
        )
    content_type = head.content_type.partition(";")[0].strip().lower()
    if head.method == "DELETE":
        options: dict[str, JSON] = _parsed(body, dict) if body else {"apiVersion": "v1", "kind": "DeleteOptions"}
        if not isinstance(conditions := options.get("preconditions") or {}, dict):
            raise BadRequest("preconditions must be an object")
        options["preconditions"] = {**conditions, "resourceVersion": version}
        return _written(options)
    if head.method == "PATCH" and content_type == JSON_PATCH:
        operations = _parsed(body, list)
        return _written([{"op": "test", "path": "/metadata/resourceVersion", "value": version}, *operations])
    if head.method == "PATCH" and content_type not in _MERGING:
        raise UnsupportedMediaType(f'a patch of type "{head.content_type}" cannot have a precondition')
    value = _parsed(body, dict)
    if head.method == "PUT" and not target.subresource and target.version == resource.version:
        value = restored(resource, value, live)
    metadata = value.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    metadata["resourceVersion"] = version
    return _written(value)


def _parsed(body: bytes, kind: type) -> JSON:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, kind):
        raise UnsupportedMediaType("a request with a resourceVersion must have a JSON body")
    return value


def _written(value: JSON) -> bytes:
    try:
        # ASCII, because a caller's text may have half a surrogate pair, which has no UTF-8.
        return json.dumps(value, separators=(",", ":")).encode()
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None


def revision_of_answer(head: CallHead, target: Target | None, body: bytes, resource: Resource | None) -> str:
    """
    The revision that the object in an answer has where a node holds it; "" for anything else.

    resource: the target's, as nodes hold it; None where they do not. What was deleted is no state to wait for.
    """
    if resource is None or target is None or head.method == "DELETE" or "dryRun=" in head.target:
        return ""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict) or (value.get("apiVersion"), value.get("kind")) != (
        resource.api_version,
        resource.kind,
    ):
        return ""
    try:
        return project(from_json(resource, value)).version.revision
    except ApiError:
        return ""


def failure(error: ApiError) -> tuple[AnswerHead, bytes]:
    """The answer that an error of ours is: a Status, as the apiserver's own errors are."""
    return AnswerHead(error.code, "application/json", float(error.retry_after_s or 0)), _written(error.status())


def object_key(target: Target, resource: Resource) -> ObjectKey:
    """The object that a target names, in the version in which nodes hold it."""
    return ObjectKey(resource, target.namespace, target.name)


_WARNING = re.compile(r'\d{3} [^ ]+ "((?:[^"\\]|\\.)*)"')


def warnings_in(headers: list[str]) -> tuple[str, ...]:
    """The texts of Warning headers, RFC 7234 section 5.5."""
    return tuple(re.sub(r"\\(.)", r"\1", found) for header in headers for found in _WARNING.findall(header))
