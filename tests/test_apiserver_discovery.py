"""Discovery: both forms name the same resources, and what is no discovery is left to others."""

import json
from typing import Any

import pytest

from apimachinery.errors import ApiError, BadRequest, MethodNotAllowed, NotFound, Unavailable
from apimachinery.keys import Resource
from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.definitions import Catalogue, Definition
from apiserver.discovery import About, answer
from apiserver.messages import Request, Response

LAMPS = Definition(
    Resource("example.com", "v1", "lamps", "Lamp", True), ("la",), ("all",), has_status=True, is_custom=True
)
CATALOGUE = Catalogue([*BUILT_IN, *REVIEWS, LAMPS])
ABOUT = About("fairlead", "9.9.9")
AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


def ask(target: str, accept: str = "", method: str = "GET") -> Response | None:
    return answer(Request(method, target, {"accept": accept}), lambda: CATALOGUE, ABOUT)


def document(target: str, accept: str = "") -> Any:
    response = ask(target, accept)
    assert response is not None
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


def from_old_documents() -> set[tuple[str, str, str, str, bool, tuple[str, ...]]]:
    places = [("", "v1")]
    for group in document("/apis")["groups"]:
        places += [(group["name"], version["version"]) for version in group["versions"]]
    found = set()
    for group_name, version in places:
        path = f"/apis/{group_name}/{version}" if group_name else f"/api/{version}"
        for entry in document(path)["resources"]:
            found.add(
                (group_name, version, entry["name"], entry["kind"], entry["namespaced"], tuple(sorted(entry["verbs"])))
            )
    return found


def from_aggregated() -> set[tuple[str, str, str, str, bool, tuple[str, ...]]]:
    found = set()
    for root in ("/api", "/apis"):
        for group in document(root, AGGREGATED)["items"]:
            for version in group["versions"]:
                for entry in version["resources"]:
                    place = (group["metadata"].get("name", ""), version["version"])
                    namespaced = entry["scope"] == "Namespaced"
                    kind = entry["responseKind"]["kind"]
                    found.add((*place, entry["resource"], kind, namespaced, tuple(sorted(entry["verbs"]))))
                    for below in entry.get("subresources", []):
                        name = f"{entry['resource']}/{below['subresource']}"
                        kind = below["responseKind"]["kind"]
                        found.add((*place, name, kind, namespaced, tuple(sorted(below["verbs"]))))
    return found


def test_both_forms_of_discovery_say_the_same() -> None:
    old = from_old_documents()
    assert old == from_aggregated()
    assert ("example.com", "v1", "lamps/status", "Lamp", True, ("get", "patch", "update")) in old
    assert len(old) > 40


def test_the_aggregated_form_is_named_in_its_media_type() -> None:
    response = ask("/apis", AGGREGATED)
    assert response is not None
    assert (
        dict(response.headers)["content-type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    )
    older = ask("/apis", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList")
    assert older is not None
    assert "v=v2beta1" in dict(older.headers)["content-type"]


def test_plain_json_asked_for_first_gets_the_old_form() -> None:
    assert document("/apis", "application/json," + AGGREGATED)["kind"] == "APIGroupList"


def test_version_names_the_server_behind_the_plus() -> None:
    version = document("/version")
    assert version["gitVersion"] == f"v{version['major']}.{version['minor']}.0+fairlead-9.9.9"


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/livez/ping"])
def test_probes_say_ok(path: str) -> None:
    response = ask(path)
    assert response is not None
    assert (response.status, response.body) == (200, b"ok")


def test_a_store_that_does_not_know_yet_is_alive_but_not_ready() -> None:
    def unknown() -> Catalogue:
        raise Unavailable("not yet", retry_after_s=1)

    assert answer(Request("GET", "/livez"), unknown, ABOUT) is not None
    with pytest.raises(Unavailable):
        answer(Request("GET", "/readyz"), unknown, ABOUT)
    with pytest.raises(Unavailable):
        answer(Request("GET", "/apis"), unknown, ABOUT)


@pytest.mark.parametrize("path", ["/api/v1/pods", "/apis/example.com/v1/lamps", "/api/v1/namespaces/a/pods/b"])
def test_resources_are_left_to_others(path: str) -> None:
    assert ask(path) is None


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/apis/nothing.example", NotFound),
        ("/apis/example.com/v2", NotFound),
        ("/api/v2", NotFound),
        ("/openapi/v4", NotFound),
        ("/favicon.ico", NotFound),
        ("/%ff", BadRequest),
    ],
)
def test_what_is_not_there_is_refused(path: str, error: type[ApiError]) -> None:
    with pytest.raises(error):
        ask(path)


def test_documents_are_read_only() -> None:
    with pytest.raises(MethodNotAllowed):
        ask("/version", method="POST")


def test_the_root_lists_the_paths() -> None:
    assert {"/api/v1", "/apis/example.com/v1", "/version", "/openapi/v2"} <= set(document("/")["paths"])
