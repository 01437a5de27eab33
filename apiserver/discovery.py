"""
What is served, told to clients: /api, /apis, /version, the health probes and the way to /openapi.

Both forms of discovery are given: the old documents, one per group version, and the aggregated one
that kubectl asks for since 1.26 with a media type of its own.

Pure, but for asking the caller for its catalogue, which it may refuse with an ApiError.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

from apimachinery.errors import MethodNotAllowed, NotFound
from apimachinery.objects import JSON
from apiserver import openapi
from apiserver.definitions import Catalogue, Definition, Subresource
from apiserver.messages import Request, Response, json_response
from apiserver.requests import segments

_SUBRESOURCE_VERBS = ("get", "patch", "update")
_SCALE = Subresource("scale", "autoscaling", "v1", "Scale", _SUBRESOURCE_VERBS)
_TOKENS = Subresource("token", "authentication.k8s.io", "v1", "TokenRequest", ("create",))
_AGGREGATED = ("v2", "v2beta1")
HEALTH = ("healthz", "livez", "readyz")
PUBLIC = frozenset((*HEALTH, "version"))
"""First parts of paths that need no credentials, as in Kubernetes' system:public-info-viewer role."""


class About(NamedTuple):
    """What /version says."""

    name: str
    """Who serves, for example "fairlead"."""
    version: str
    """Its own version, for example "0.1.0"."""
    kubernetes: tuple[int, int] = (1, 34)
    """The Kubernetes release whose API is spoken."""


def answer(request: Request, catalogue: Callable[[], Catalogue], about: About) -> Response | None:
    """The response where the path is one of discovery; None where it addresses resources."""
    parts = segments(request.path)
    document: JSON
    match parts:
        case [name, *_] if name in HEALTH:
            if name == "readyz":
                catalogue()  # raises Unavailable where the store does not know yet what it holds
            return Response(200, [("content-type", "text/plain; charset=utf-8")], b"ok")
        case ["version"]:
            document = _version(about)
        case []:
            document = {"paths": _paths(catalogue())}
        case ["api" | "apis"] if found := _aggregated(parts[0], request, catalogue()):
            return found
        case ["api"]:
            document = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = [_group(name, versions) for name, versions in catalogue().groups().items() if name]
            document = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", group]:
            versions = catalogue().groups().get(group)
            if versions is None:
                raise _not_found()
            document = {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, versions)
        case ["api", version]:
            document = _resources("", version, catalogue())
        case ["apis", group, version]:
            document = _resources(group, version, catalogue())
        case ["openapi", *rest]:
            response = openapi.answer(rest, request.headers.get("accept", ""), catalogue())
            if response is None:
                raise _not_found()
            return response
        case ["api" | "apis", *_]:
            return None
        case _:
            raise _not_found()
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("the server does not allow this method on the requested resource")
    return json_response(200, document)


def _not_found() -> NotFound:
    return NotFound("the server could not find the requested resource")


def _version(about: About) -> JSON:
    major, minor = about.kubernetes
    return {
        "major": str(major),
        "minor": str(minor),
        # Semantic versioning: what stands after the plus says who it is and does not count.
        "gitVersion": f"v{major}.{minor}.0+{about.name}-{about.version}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "",
    }


def _paths(catalogue: Catalogue) -> list[str]:
    paths = ["/api", "/api/v1", "/apis"]
    for group, versions in catalogue.groups().items():
        if group:
            paths += [f"/apis/{group}", *(f"/apis/{group}/{version}" for version in versions)]
    return sorted([*paths, *(f"/{name}" for name in HEALTH), "/openapi/v2", "/openapi/v3", "/version"])


def _group(name: str, versions: list[str]) -> dict[str, JSON]:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def _resources(group: str, version: str, catalogue: Catalogue) -> JSON:
    found = catalogue.in_version(group, version)
    if not found:
        raise _not_found()
    entries: list[JSON] = []
    for definition in found:
        resource = definition.resource
        entry: dict[str, JSON] = {
            "name": resource.plural,
            "singularName": definition.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(definition.verbs),
        }
        if definition.short_names:
            entry["shortNames"] = list(definition.short_names)
        if definition.categories:
            entry["categories"] = list(definition.categories)
        entries.append(entry)
        if definition.has_status:
            entries.append(
                {
                    "name": f"{resource.plural}/status",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "kind": resource.kind,
                    "verbs": list(_SUBRESOURCE_VERBS),
                }
            )
        for below in _below(definition):
            entries.append(
                {
                    "name": f"{resource.plural}/{below.name}",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "group": below.group,
                    "version": below.version,
                    "kind": below.kind,
                    "verbs": list(below.verbs),
                }
            )
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": entries}


def _aggregated(root: str, request: Request, catalogue: Catalogue) -> Response | None:
    """The one document with everything, where the client names it before plain JSON."""
    version = aggregated_version(request.headers.get("accept", ""))
    if version is None or request.method not in ("GET", "HEAD"):
        return None
    items = []
    for group, versions in catalogue.groups().items():
        if (group == "") != (root == "api"):
            continue
        metadata: dict[str, JSON] = {"creationTimestamp": None}
        if group:
            metadata["name"] = group
        entries = [
            {
                "version": name,
                "resources": [_aggregated_resource(found) for found in catalogue.in_version(group, name)],
                "freshness": "Current",
            }
            for name in versions
        ]
        items.append({"metadata": metadata, "versions": entries})
    document = {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }
    media_type = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
    body = json.dumps(document, separators=(",", ":")).encode()
    return Response(200, [("content-type", media_type), ("vary", "Accept")], body)


def aggregated_version(accept: str) -> str | None:
    """Which version of the one document a client would rather have than the many; None for the many."""
    for media_range in accept.split(","):
        kind, *rest = (part.strip() for part in media_range.split(";"))
        if kind != "application/json":
            continue
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        if "as" not in parameters:
            return None
        if parameters["as"] == "APIGroupDiscoveryList" and parameters.get("g") == "apidiscovery.k8s.io":
            version = parameters.get("v", "")
            if version in _AGGREGATED:
                return version
    return None


def _aggregated_resource(definition: Definition) -> JSON:
    resource = definition.resource
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    entry: dict[str, JSON] = {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": definition.singular,
        "verbs": list(definition.verbs),
    }
    if definition.short_names:
        entry["shortNames"] = list(definition.short_names)
    if definition.categories:
        entry["categories"] = list(definition.categories)
    below: list[JSON] = []
    if definition.has_status:
        below.append({"subresource": "status", "responseKind": kind, "verbs": list(_SUBRESOURCE_VERBS)})
    for each in _below(definition):
        asked = {"group": each.group, "version": each.version, "kind": each.kind}
        below.append({"subresource": each.name, "responseKind": asked, "verbs": list(each.verbs)})
    if below:
        entry["subresources"] = below
    return entry


def _below(definition: Definition) -> tuple[Subresource, ...]:
    """What there is below an object beside its status."""
    scale = (_SCALE,) if definition.scale is not None else ()
    return (*definition.subresources, *scale, *((_TOKENS,) if definition.has_tokens else ()))
