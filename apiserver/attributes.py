"""
What a request asks of the authorizer: a verb on a resource, or on a path that is none.

Read from method and target alone, before anything is looked up, so that somebody without rights does not
learn what exists.

Invariants
    for every target that `apiserver.requests.parse` accepts, both see the same verb, resource, name and namespace

Pure. After k8s.io/apiserver/pkg/endpoints/request/requestinfo.go and handlers/responsewriters.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from apimachinery.errors import BadRequest, Forbidden
from apimachinery.objects import JSON
from apimachinery.selectors import parse_fields
from apiserver.requests import MAX_QUERY_FIELDS, NAMESPACE_SUBRESOURCES, segments
from apiserver.users import User

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """One question: may somebody do this?"""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    """Plural; "" where `path` is asked for."""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    selected: tuple[tuple[str, str], ...] = ()
    """(field, value) pairs that a list or watch is narrowed to by its field selector."""

    @property
    def is_resource(self) -> bool:
        return bool(self.resource)

    @property
    def combined(self) -> str:
        """The resource as rules name it: "pods" or "pods/status"."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def attributes_of(method: str, target: str) -> Attributes:
    """What `method target` asks for. Raises BadRequest or NotFound for a path that cannot be read."""
    path, _, query = target.partition("?")
    verb = _VERBS.get(method, method.lower())
    match segments(path):
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return Attributes(verb=verb, path=path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and not (len(rest) == 3 and rest[2] in NAMESPACE_SUBRESOURCES):
            rest = rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    selected: tuple[tuple[str, str], ...] = ()
    if not name and verb == "get":
        verb, selected = _list_or_watch(query)
        name = dict(selected).get("metadata.name", "")  # who may read one object may also watch that one
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Attributes(
        verb=verb,
        group=group,
        version=version,
        resource=rest[0],
        subresource="/".join(rest[2:]),
        namespace=namespace,
        name=name,
        path=path,
        selected=selected,
    )


def _list_or_watch(query: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The verb, and what the field selector narrows it to."""
    options: dict[str, str] = {}
    try:
        for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS):
            options.setdefault(name, value)
        terms = parse_fields(options.get("fieldSelector", "")).terms
    except (ValueError, BadRequest):
        terms = ()  # the handler says what is wrong with it
    watches = "watch" in options and options["watch"].lower() not in ("false", "0")
    return "watch" if watches else "list", tuple((path, value) for path, value, wanted in terms if wanted)


def of_review(spec: Mapping[str, JSON]) -> Attributes:
    """What the spec of an access review asks for. Raises BadRequest unless it is one thing."""
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (path is None):
        raise BadRequest("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    asked = resource if path is None else path
    if not isinstance(asked, Mapping):
        raise BadRequest("resourceAttributes and nonResourceAttributes must be objects")
    if path is not None:
        return Attributes(verb=_text(asked, "verb"), path=_text(asked, "path"))
    return Attributes(
        verb=_text(asked, "verb"),
        group=_text(asked, "group"),
        version=_text(asked, "version"),
        resource=_text(asked, "resource"),
        subresource=_text(asked, "subresource"),
        namespace=_text(asked, "namespace"),
        name=_text(asked, "name"),
    )


def _text(asked: Mapping[str, JSON], name: str) -> str:
    value = asked.get(name) or ""
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be a string")
    return value


def forbidden(user: User, asked: Attributes, reason: str = "") -> Forbidden:
    """The refusal, in kube-apiserver's words."""
    if asked.is_resource:
        scope = f"in the namespace {_quoted(asked.namespace)}" if asked.namespace else "at the cluster scope"
        told = (
            f"User {_quoted(user.name)} cannot {asked.verb} resource {_quoted(asked.combined)} "
            f"in API group {_quoted(asked.group)} {scope}"
        )
    else:
        told = f"User {_quoted(user.name)} cannot {asked.verb} path {_quoted(asked.path)}"
    if reason:
        told += f": {reason}"
    collection = f"{asked.resource}.{asked.group}" if asked.group else asked.resource
    what = f"{collection} {_quoted(asked.name)} is forbidden" if asked.name else f"{collection} is forbidden"
    message = f"{what if asked.is_resource else 'forbidden'}: {told}"
    return Forbidden(message, kind=asked.resource, group=asked.group, name=asked.name)


def _quoted(text: str) -> str:
    """As Go's %q, for all that is printable."""
    return json.dumps(text, ensure_ascii=False)
