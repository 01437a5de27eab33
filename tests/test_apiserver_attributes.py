"""What requests ask of the authorizer: the same that the handler then does, and refusals in Kubernetes' words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import ApiError, BadRequest
from apiserver.attributes import Attributes, attributes_of, forbidden, of_review
from apiserver.builtins import BUILT_IN, REVIEWS
from apiserver.definitions import Catalogue
from apiserver.requests import parse
from apiserver.users import User

CATALOGUE = Catalogue((*BUILT_IN, *REVIEWS))


@pytest.mark.parametrize(
    ("method", "target", "told"),
    [
        ("GET", "/api/v1/pods", "list pods"),
        ("GET", "/api/v1/pods?watch=1", "watch pods"),
        ("GET", "/api/v1/pods?watch=false", "list pods"),
        ("HEAD", "/api/v1/namespaces/d/pods/p", "get pods d p"),
        ("GET", "/api/v1/namespaces/d/pods?fieldSelector=metadata.name%3Dp", "list pods d p"),
        ("GET", "/api/v1/namespaces/d/pods?watch&fieldSelector=metadata.name%3Dp,spec.nodeName%3Dn", "watch pods d p"),
        ("GET", "/api/v1/namespaces/d/pods?fieldSelector=metadata.name!%3Dp", "list pods d"),
        ("GET", "/api/v1/namespaces/d/pods?fieldSelector=%3D", "list pods d"),
        ("POST", "/api/v1/namespaces/d/serviceaccounts/s/token", "create serviceaccounts/token d s"),
        ("PUT", "/api/v1/namespaces/d/pods/p/status", "update pods/status d p"),
        ("DELETE", "/api/v1/namespaces/d/pods", "deletecollection pods d"),
        ("DELETE", "/api/v1/namespaces/d", "delete namespaces d d"),
        ("PUT", "/api/v1/namespaces/d/finalize", "update namespaces/finalize d d"),
        ("GET", "/api/v1/namespaces", "list namespaces"),
        ("PATCH", "/apis/apps/v1/namespaces/d/deployments/x", "patch deployments d x apps"),
        ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
        ("GET", "/", "get /"),
        ("GET", "/healthz?verbose", "get /healthz"),
        ("OPTIONS", "/version", "options /version"),
    ],
)
def test_a_request_is_a_verb_on_a_resource_or_a_path(method: str, target: str, told: str) -> None:
    asked = attributes_of(method, target)
    what = asked.combined if asked.is_resource else asked.path
    assert " ".join(filter(None, (asked.verb, what, asked.namespace, asked.name, asked.group))) == told


PARTS = [
    "api",
    "apis",
    "v1",
    "apps",
    "namespaces",
    "d",
    "pods",
    "p",
    "status",
    "secrets",
    "deployments",
    "nodes",
    "%61",
]


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]),
    st.lists(st.sampled_from(PARTS), max_size=8),
    st.sampled_from(["", "?watch=1", "?watch", "?watch=0", "?limit=1"]),
    st.sampled_from(["/", "//", ""]),
)
def test_what_is_allowed_is_what_is_done(method: str, parts: list[str], query: str, end: str) -> None:
    """Were the two readings of a target to differ, rights for one thing would be rights for another."""
    target = "/" + "/".join(parts) + end + query
    try:
        done = parse(method, target, CATALOGUE.resolve)
    except ApiError:
        return
    asked = attributes_of(method, target)
    assert (asked.verb, asked.group, asked.resource) == (done.verb, done.resource.group, done.resource.plural)
    assert (asked.name, asked.subresource) == (done.name, done.subresource)
    if done.resource.namespaced:
        assert asked.namespace == done.namespace


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            Attributes(verb="list", resource="pods", namespace="default"),
            'pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"',
        ),
        (
            Attributes(verb="update", group="apps", resource="deployments", subresource="status", name="d"),
            'deployments.apps "d" is forbidden: User "x" cannot update resource "deployments/status" in API group '
            '"apps" at the cluster scope',
        ),
        (Attributes(verb="get", path="/metrics"), 'forbidden: User "x" cannot get path "/metrics"'),
    ],
)
def test_a_refusal_has_the_words_of_kubernetes(asked: Attributes, words: str) -> None:
    error = forbidden(User("x"), asked)
    assert error.message == words
    assert (error.kind, error.group, error.name) == (asked.resource, asked.group, asked.name)
    assert forbidden(User("x"), asked, "because").message == f"{words}: because"


def test_a_review_asks_for_a_resource_or_a_path() -> None:
    resource = {"verb": "get", "resource": "pods", "namespace": "d", "subresource": "status"}
    assert of_review({"resourceAttributes": resource}).combined == "pods/status"
    assert of_review({"nonResourceAttributes": {"verb": "get", "path": "/x"}}).path == "/x"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"resourceAttributes": {}, "nonResourceAttributes": {}},
        {"resourceAttributes": "pods"},
        {"resourceAttributes": {"verb": 1}},
    ],
)
def test_a_review_that_asks_for_nothing_or_two_things_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        of_review(spec)
