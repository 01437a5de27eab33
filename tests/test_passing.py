"""Requests as they are passed on, and answers as they come back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import ApiError, BadRequest, Conflict, MethodNotAllowed, TooManyRequests, UnsupportedMediaType
from apimachinery.keys import Resource
from apimachinery.objects import LAST_APPLIED, from_json
from apimachinery.resources import CUSTOM_RESOURCE_DEFINITIONS, LEASES, NODES, PODS
from cloudhub.passing import (
    APPLY_PATCH,
    JSON_PATCH,
    Target,
    amended,
    checked,
    failure,
    revision_of_answer,
    warnings_in,
)
from cloudhub.projection import project
from link.frames import CallHead

WIDGETS = Resource("example.com", "v1", "widgets", "Widget", True)
LIVE: dict[str, Any] = {
    "apiVersion": "example.com/v1",
    "kind": "Widget",
    "metadata": {"name": "w", "namespace": "a", "uid": "u", "resourceVersion": "77", "managedFields": [{}]},
    "spec": {"size": 1},
}
BASE = project(from_json(WIDGETS, LIVE)).version.revision
PATH = "/apis/example.com/v1/namespaces/a/widgets/w"
TARGET = Target("example.com", "v1", "a", "widgets", "w", "")


def call(method: str, body: object = None, content_type: str = "application/json", **head: str) -> Any:
    """The body that goes on, decoded."""
    told = CallHead(method, head.pop("target", PATH), content_type=content_type, base=head.pop("base", BASE))
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return json.loads(amended(told, content, checked(told), LIVE, WIDGETS))


@pytest.mark.parametrize(
    ("target", "meaning"),
    [
        (PATH, TARGET),
        (PATH + "/status?fieldManager=x", TARGET._replace(subresource="status")),
        ("/apis/example.com/v1/widgets", Target("example.com", "v1", "", "widgets", "", "")),
        ("/api/v1/namespaces/a/pods?limit=5", Target("", "v1", "a", "pods", "", "")),
        ("/api/v1/namespaces", Target("", "v1", "", "namespaces", "", "")),
        ("/api/v1/namespaces/a", Target("", "v1", "", "namespaces", "a", "")),
        ("/api/v1/namespaces/a/status", Target("", "v1", "", "namespaces", "a", "status")),
        ("/api/v1/namespaces/a/pods/p/log?follow=false", Target("", "v1", "a", "pods", "p", "log")),
        ("/api/v1/nodes/n%3A1", Target("", "v1", "", "nodes", "n:1", "")),
        ("/apis/example.com/v1/widgets?watch=0", Target("example.com", "v1", "", "widgets", "", "")),
        ("/apis", None),
        ("/apis/example.com", None),
        ("/api/v1", None),
        ("/version", None),
        ("/openapi/v3/apis/apps/v1?hash=X", None),
    ],
)
def test_what_a_target_means(target: str, meaning: Target | None) -> None:
    assert checked(CallHead("GET", target)) == meaning


@pytest.mark.parametrize(
    ("method", "target", "error"),
    [
        ("HEAD", "/api", MethodNotAllowed),
        ("get", "/api", MethodNotAllowed),
        ("GET", "", BadRequest),
        ("GET", "api/v1", BadRequest),
        ("GET", "http://elsewhere/api", BadRequest),
        ("GET", "//elsewhere/api", BadRequest),
        ("GET", "/api/v1/../../x", BadRequest),
        ("GET", "/api/v1/%2e%2e/x", BadRequest),
        ("GET", "/api/v1/pods%2F..%2Fsecrets/x", BadRequest),
        ("GET", "/api/v1/..", BadRequest),
        ("GET", "/openapi/..%2F..%2Fapi%2Fv1%2Fsecrets", BadRequest),
        ("GET", "/api v1", BadRequest),
        ("GET", "/api\r\nX: y", BadRequest),
        ("GET", "/api/v1/pods#x", BadRequest),
        ("GET", "/api/v1/pods?watch=true", BadRequest),
        ("GET", "/api/v1/pods?watch", BadRequest),
        ("GET", "/api/v1/pods?watch=no", BadRequest),
        ("GET", "/api/v1/namespaces/a/pods/p/log?follow=f", BadRequest),
        ("GET", "/api/v1/pods?limit=1&%77atch=1", BadRequest),
        ("GET", "/api/v1/watch/pods", BadRequest),
        ("GET", "/api/v1/namespaces/a/pods/p/log?follow=true", BadRequest),
        ("POST", "/api/v1/namespaces/a/pods/p/exec", BadRequest),
        ("GET", "/api/v1/namespaces/a/services/s/proxy/x/y", BadRequest),
        ("POST", "/api/v1/namespaces/a/pods/p/portforward", BadRequest),
    ],
)
def test_what_is_not_passed_on(method: str, target: str, error: type[ApiError]) -> None:
    with pytest.raises(error):
        checked(CallHead(method, target))


@pytest.mark.parametrize("text", ["a\r\nImpersonate-User: x", "\N{SNOWMAN}", "\0"])
def test_a_header_cannot_be_made_of_anything(text: str) -> None:
    for field in ("content_type", "accept", "agent"):
        with pytest.raises(BadRequest, match="ASCII"):
            checked(CallHead("GET", "/version")._replace(**{field: text}))


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metadata", "annotations", "spec", "status", "versions", "conditions", "preconditions"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    NONSENSE,
    st.sampled_from([("PUT", ""), ("DELETE", ""), ("PATCH", JSON_PATCH), ("PATCH", APPLY_PATCH)]),
    st.sampled_from([WIDGETS, NODES, LEASES, CUSTOM_RESOURCE_DEFINITIONS]),
)
def test_any_body_goes_on_or_is_refused(body: object, how: tuple[str, str], resource: Resource) -> None:
    metadata = {
        "name": "w",
        "namespace": "kube-node-lease",
        "annotations": {LAST_APPLIED: "{}"},
        "resourceVersion": "1",
    }
    spec = {"versions": [{"name": "v1", "schema": {}}], "renewTime": "1", "conversion": {}}
    conditions = [{"type": "Ready", "lastHeartbeatTime": "1"}]
    live = {"metadata": metadata, "spec": spec, "status": {"conditions": conditions}}
    head = CallHead(how[0], PATH, content_type=how[1], base=project(from_json(resource, live)).version.revision)
    target = Target(resource.group, resource.version, "", resource.plural, "w", "")
    try:
        told = amended(head, json.dumps(body).encode(), target, live, resource)
    except ApiError:
        return
    assert json.loads(told)


@given(st.text())
def test_any_target_is_understood_or_refused(target: str) -> None:
    try:
        checked(CallHead("GET", target))
    except BadRequest:
        return
    assert target.startswith("/")
    assert target.isascii()


def test_a_put_gets_the_version_that_the_object_has_and_what_was_taken_away() -> None:
    seen = {**LIVE, "metadata": {"name": "w", "namespace": "a", "uid": "u"}, "spec": {"size": 2}}
    assert call("PUT", seen) == {**seen, "metadata": {**seen["metadata"], "resourceVersion": "77"}}
    live = {**LIVE, "metadata": {**LIVE["metadata"], "annotations": {LAST_APPLIED: "{}"}}}
    pod = {**live, "apiVersion": "v1", "kind": "Pod"}
    base = project(from_json(PODS, pod)).version.revision
    head = CallHead("PUT", "/api/v1/namespaces/a/pods/w", base=base)
    told = json.loads(amended(head, json.dumps(seen).encode(), checked(head), pod, PODS))
    assert told["metadata"]["annotations"] == {LAST_APPLIED: "{}"}
    status = head._replace(target=head.target + "/status")
    told = json.loads(amended(status, json.dumps(seen).encode(), checked(status), pod, PODS))
    assert "annotations" not in told["metadata"], "a status is not the whole object"


@pytest.mark.parametrize(
    "kind", ["application/merge-patch+json", "application/strategic-merge-patch+json", APPLY_PATCH]
)
def test_a_patch_says_the_version(kind: str) -> None:
    assert call("PATCH", {"spec": {"size": 3}}, kind) == {"spec": {"size": 3}, "metadata": {"resourceVersion": "77"}}


def test_a_json_patch_tests_the_version_first() -> None:
    operation = {"op": "remove", "path": "/spec"}
    assert call("PATCH", [operation], JSON_PATCH) == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "77"},
        operation,
    ]


def test_a_delete_has_it_among_its_preconditions() -> None:
    assert call("DELETE")["preconditions"] == {"resourceVersion": "77"}
    options = {"preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"}
    assert call("DELETE", options) == {**options, "preconditions": {"uid": "u", "resourceVersion": "77"}}


def test_what_the_caller_could_not_see_is_no_conflict_and_what_he_could_is() -> None:
    renewed = {**LIVE, "metadata": {**LIVE["metadata"], "resourceVersion": "78", "managedFields": [{}, {}]}}
    head = CallHead("DELETE", PATH, base=BASE)
    assert json.loads(amended(head, b"", checked(head), renewed, WIDGETS))["preconditions"]["resourceVersion"] == "78"
    with pytest.raises(Conflict) as caught:
        amended(head, b"", checked(head), {**LIVE, "spec": {"size": 9}}, WIDGETS)
    status = caught.value.status()
    assert status["details"] == {"name": "w", "group": "example.com", "kind": "widgets"}


@pytest.mark.parametrize(
    ("method", "body", "content_type", "error"),
    [
        ("PUT", b"k8s\0protobuf", "application/vnd.kubernetes.protobuf", UnsupportedMediaType),
        ("PUT", b"[1]", "application/json", UnsupportedMediaType),
        ("PUT", b'{"metadata": 7}', "application/json", BadRequest),
        ("PUT", b"[" * 100_000, "application/json", UnsupportedMediaType),
        ("PATCH", b"spec: {}", APPLY_PATCH, UnsupportedMediaType),
        ("PATCH", b"{}", "text/plain", UnsupportedMediaType),
        ("PATCH", b"{}", JSON_PATCH, UnsupportedMediaType),
        ("POST", b"{}", "application/json", BadRequest),
    ],
)
def test_a_precondition_that_cannot_be_said_is_refused(
    method: str, body: bytes, content_type: str, error: type[ApiError]
) -> None:
    with pytest.raises(error):
        call(method, body, content_type)


def test_an_answer_says_which_revision_a_node_will_hold() -> None:
    body = json.dumps(LIVE).encode()
    put = CallHead("PUT", PATH)
    assert revision_of_answer(put, TARGET, body, WIDGETS) == BASE
    for head, target, told, resource in (
        (put, TARGET, body, None),
        (put, None, body, WIDGETS),
        (CallHead("DELETE", PATH), TARGET, body, WIDGETS),
        (CallHead("PUT", PATH + "?dryRun=All"), TARGET, body, WIDGETS),
        (put, TARGET, json.dumps({**LIVE, "kind": "Scale"}).encode(), WIDGETS),
        (put, TARGET, json.dumps({**LIVE, "apiVersion": "example.com/v2"}).encode(), WIDGETS),
        (put, TARGET, json.dumps({**LIVE, "metadata": {}}).encode(), WIDGETS),
        (put, TARGET, b"k8s\0", WIDGETS),
        (put, TARGET, b"[]", WIDGETS),
    ):
        assert revision_of_answer(head, target, told, resource) == ""


def test_an_error_of_ours_is_a_status() -> None:
    head, body = failure(TooManyRequests("later", retry_after_s=2))
    assert (head.status, head.content_type, head.retry_after_s) == (429, "application/json", 2.0)
    assert json.loads(body)["reason"] == "TooManyRequests"


def test_warnings_are_read_as_rfc_7234_has_them() -> None:
    assert warnings_in(['299 - "old \\"v1\\""', '299 kube "a", 299 - "b"', "nonsense"]) == ('old "v1"', "a", "b")
