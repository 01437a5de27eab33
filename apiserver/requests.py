"""
What a request to a Kubernetes API asks for: method and target in, an ApiRequest out, or an ApiError.

Everything a client can write into a URL is judged here and nowhere else, so that both servers refuse
the same things in the same words. Which resources exist is the caller's knowledge, given as `resolve`.

Invariants
    a name or namespace in an ApiRequest is never ".", ".." and has no "/" and no "%": it is no path
    resource_version is "" or decimal digits
    parse is total: it returns or raises an ApiError, whatever the target

Pure: no I/O. After k8s.io/apiserver/pkg/endpoints/request/requestinfo.go and the ListOptions of metav1.
"""

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from apimachinery.errors import ApiError, BadRequest, Cause, Invalid, MethodNotAllowed, NotAcceptable, NotFound
from apimachinery.keys import ObjectKey, Resource
from apimachinery.selectors import ALL_FIELDS, EVERYTHING, FieldSelector, LabelSelector, parse_fields, parse_labels

Resolve = Callable[[str, str, str], Resource | None]
"""(group, version, plural) to the resource that is served under these names."""

MAX_QUERY_FIELDS = 64  # a list request has about ten
NAMESPACE_SUBRESOURCES = ("status", "finalize")


class Verb(enum.StrEnum):
    """What is to be done, in the words of discovery and RBAC."""

    GET = "get"
    LIST = "list"
    WATCH = "watch"
    CREATE = "create"
    UPDATE = "update"
    PATCH = "patch"
    DELETE = "delete"
    DELETE_COLLECTION = "deletecollection"

    @property
    def is_read(self) -> bool:
        return self in (Verb.GET, Verb.LIST, Verb.WATCH)


class Form(enum.Enum):
    """What the answer is to look like."""

    OBJECT = "Object"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


class Accepted(NamedTuple):
    """The form a client accepts, and the meta.k8s.io version in which it wants a Table or metadata."""

    form: Form = Form.OBJECT
    version: str = "v1"


_PLAIN = Accepted()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """One request for a resource. Fields that do not matter for the verb keep their defaults."""

    verb: Verb
    resource: Resource
    namespace: str = ""
    """"" for a cluster-scoped resource, and for all namespaces."""
    name: str = ""
    subresource: str = ""
    labels: LabelSelector = EVERYTHING
    fields: FieldSelector = ALL_FIELDS
    limit: int = 0
    """Most objects in one answer; 0 for all."""
    continue_token: str = ""
    resource_version: str = ""
    match: str = ""
    """resourceVersionMatch: "", "Exact" or "NotOlderThan"."""
    timeout_s: int | None = None
    bookmarks: bool = False
    initial_events: bool | None = None
    """sendInitialEvents: whether a watch begins with what there is and a bookmark after it; None when not said."""
    dry_run: bool = False
    field_validation: str = ""
    """"", "Ignore", "Warn" or "Strict"."""
    field_manager: str = ""
    force: bool | None = None
    """Of a server-side apply: whether to take what others hold; None when not said."""
    propagation: str = ""
    """propagationPolicy: "", "Background", "Foreground" or "Orphan"; a delete's body may say it too."""
    accepted: Accepted = _PLAIN
    include_object: str = "Metadata"
    """What a Table's rows carry: "None", "Metadata" or "Object"."""

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.resource, self.namespace, self.name)


def parse(method: str, target: str, resolve: Resolve, accept: str = "") -> ApiRequest:
    """
    What `method target` asks for.

    Raises NotFound for a path that is no resource's, MethodNotAllowed, NotAcceptable, BadRequest for
    what cannot be read and Invalid for what can be read but must not be said.
    """
    path, _, query = target.partition("?")
    resource, namespace, name, subresource = _place(path, resolve)
    options = _options(query)
    verb = _verb(method, name, subresource, options)
    if verb is Verb.CREATE and not namespace and resource.namespaced:
        raise BadRequest(f"a {resource.kind} is created in a namespace: POST to {resource.path('NAMESPACE')}")
    request = ApiRequest(
        verb=verb,
        resource=resource,
        namespace=namespace,
        name=name,
        subresource=subresource,
        labels=parse_labels(options.get("labelSelector", "")),
        fields=parse_fields(options.get("fieldSelector", "")),
        limit=_integer(options, "limit") or 0,
        continue_token=options.get("continue", ""),
        resource_version=_version(options),
        match=_one_of(options, "resourceVersionMatch", ("Exact", "NotOlderThan")),
        timeout_s=_integer(options, "timeoutSeconds"),
        bookmarks=_flag(options, "allowWatchBookmarks"),
        initial_events=_flag(options, "sendInitialEvents") if "sendInitialEvents" in options else None,
        dry_run=bool(_one_of(options, "dryRun", ("All",))),
        field_validation=_one_of(options, "fieldValidation", ("Ignore", "Warn", "Strict")),
        field_manager=options.get("fieldManager", ""),
        force=_flag(options, "force") if "force" in options else None,
        propagation=_one_of(options, "propagationPolicy", ("Background", "Foreground", "Orphan")),
        accepted=accepted(accept),
        include_object=_one_of(options, "includeObject", ("None", "Metadata", "Object")) or "Metadata",
    )
    _check(request)
    return request


def segments(path: str) -> list[str]:
    """
    The decoded parts of a path; [] for "/".

    Raises BadRequest for what is no UTF-8 and NotFound for an empty part, which only a typing error makes.
    """
    parts = path.strip("/").split("/")
    if parts == [""]:
        return []
    try:
        decoded = [unquote(part, errors="strict") for part in parts]
    except UnicodeDecodeError:
        raise BadRequest("the path is not valid UTF-8 once decoded") from None
    if "" in decoded:
        raise _no_such_path()
    return decoded


def accepted(accept: str) -> Accepted:
    """
    The first form in an Accept header that can be given. Raises NotAcceptable when there is none.

    Protobuf and YAML are passed over: every client that asks for them names JSON too.
    """
    if not accept.strip():
        return Accepted()
    for media_range in accept.split(","):
        kind, *rest = (part.strip() for part in media_range.split(";"))
        if kind.lower() not in ("application/json", "application/*", "*/*"):
            continue
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        if parameters.get("q") in ("0", "0.0"):
            continue
        wanted = parameters.get("as", "").removesuffix("List")
        if not wanted:
            return Accepted()
        version = parameters.get("v", "v1")
        if parameters.get("g") != "meta.k8s.io" or version not in ("v1", "v1beta1"):
            continue
        if wanted == Form.TABLE.value:
            return Accepted(Form.TABLE, version)
        if wanted == Form.METADATA.value:
            return Accepted(Form.METADATA, version)
    raise NotAcceptable("only the following media types are accepted: application/json")


def _no_such_path() -> NotFound:
    return NotFound("the server could not find the requested resource")


def _place(path: str, resolve: Resolve) -> tuple[Resource, str, str, str]:
    """Which resource, namespace, name and subresource a path addresses."""
    match segments(path):
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest and group:
            pass
        case _:
            raise _no_such_path()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and rest[2] in NAMESPACE_SUBRESOURCES):
        namespace, rest = _path_name(rest[1]), rest[2:]
    resource = resolve(group, version, rest[0])
    if resource is None or (namespace and not resource.namespaced):
        raise _no_such_path()
    name = _path_name(rest[1]) if len(rest) > 1 else ""
    if name and resource.namespaced and not namespace:
        raise _no_such_path()
    return resource, namespace, name, "/".join(rest[2:])


def _path_name(text: str) -> str:
    """k8s.io/apimachinery/pkg/api/validation/path: IsValidPathSegmentName."""
    if text in (".", ".."):
        raise BadRequest(f'invalid name "{text}": may not be "{text}"')
    for character in "/%":
        if character in text:
            raise BadRequest(f'invalid name "{text}": may not contain "{character}"')
    if not text.isprintable():
        raise BadRequest("invalid name: may not contain control characters")
    return text


def _options(query: str) -> dict[str, str]:
    """The first value of each query parameter, as Kubernetes' own conversion takes it."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except UnicodeDecodeError:
        raise BadRequest("the query is not valid UTF-8 once decoded") from None
    except ValueError as exc:
        raise BadRequest(f"the query cannot be read: {exc}") from None
    options: dict[str, str] = {}
    for name, value in pairs:
        options.setdefault(name, value)
    return options


def _verb(method: str, name: str, subresource: str, options: Mapping[str, str]) -> Verb:
    match method:
        case "GET" | "HEAD":
            if name:
                return Verb.GET
            return Verb.WATCH if _flag(options, "watch") else Verb.LIST
        case "POST" if not name or subresource:
            return Verb.CREATE
        case "PUT" if name:
            return Verb.UPDATE
        case "PATCH" if name:
            return Verb.PATCH
        case "DELETE":
            return Verb.DELETE if name else Verb.DELETE_COLLECTION
    raise MethodNotAllowed(f"the server does not allow this method on the requested resource: {method}")


def _flag(options: Mapping[str, str], name: str) -> bool:
    """apimachinery's conversion: present and empty is true, "false" and "0" are false, anything else is true."""
    return name in options and options[name].lower() not in ("false", "0")


def _integer(options: Mapping[str, str], name: str) -> int | None:
    text = options.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise BadRequest(f'{name}: "{text[:40]}" is not an integer')
    # A negative limit or timeout means none, as in Kubernetes.
    return max(int(text), 0)


def _version(options: Mapping[str, str]) -> str:
    text = options.get("resourceVersion", "")
    # 19 digits: an etcd revision is an int64, and the edge marks the cluster's versions with its second highest bit.
    if text and not (re.fullmatch(r"[0-9]{1,19}", text) and int(text) < 2**63):
        raise _invalid("resourceVersion", f'Invalid value: "{text[:40]}": must be a decimal number')
    return text


def _one_of(options: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    text = options.get(name, "")
    if text and text not in allowed:
        values = ", ".join(f'"{value}"' for value in allowed)
        raise _invalid(name, f'Unsupported value: "{text[:40]}": supported values: {values}')
    return text


def _check(request: ApiRequest) -> None:
    """The combinations that metav1.ValidateListOptions forbids."""
    if request.verb is Verb.WATCH:
        _check_watch(request)
        return
    if request.match and not request.resource_version:
        raise _invalid(
            "resourceVersionMatch", "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    if request.match == "Exact" and request.resource_version == "0":
        raise _invalid(
            "resourceVersionMatch", 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        )
    if request.continue_token and request.resource_version not in ("", "0"):
        raise BadRequest("specifying resource version is not allowed when using continue")
    if request.continue_token and request.match:
        raise _invalid("resourceVersionMatch", "Forbidden: resourceVersionMatch is forbidden when continue is provided")
    if request.initial_events is not None:
        raise _invalid("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list")


def _check_watch(request: ApiRequest) -> None:
    """A watch may say NotOlderThan without a version: a new informer that streams its list begins so."""
    if request.initial_events is not None and request.match != "NotOlderThan":
        raise _invalid(
            "resourceVersionMatch", "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    if request.match and request.initial_events is None:
        raise _invalid(
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )
    if request.match and request.continue_token:
        raise _invalid("resourceVersionMatch", "Forbidden: resourceVersionMatch is forbidden when continue is provided")


def _invalid(field: str, message: str) -> ApiError:
    kind, _, _ = message.partition(":")
    reason = {"Forbidden": "FieldValueForbidden", "Unsupported value": "FieldValueNotSupported"}.get(
        kind, "FieldValueInvalid"
    )
    return Invalid(f"{field}: {message}", causes=[Cause(field, reason, message)])
