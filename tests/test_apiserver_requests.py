"""What a URL asks for: the URLs clients build come back as what they meant, and nothing crashes the parser."""

import re
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import ApiError, BadRequest, Invalid, MethodNotAllowed, NotAcceptable, NotFound
from apimachinery.keys import Resource
from apimachinery.resources import CONFIG_MAPS, DEVICES, NAMESPACES, NODES, PODS
from apimachinery.selectors import parse_fields, parse_labels
from apiserver.requests import Accepted, Form, Verb, accepted, parse, segments

RESOURCES = (NODES, PODS, CONFIG_MAPS, NAMESPACES, DEVICES)


def resolve(group: str, version: str, plural: str) -> Resource | None:
    for resource in RESOURCES:
        if (resource.group, resource.version, resource.plural) == (group, version, plural):
            return resource
    return None


NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9.:]{0,20}[a-z0-9])?", fullmatch=True)
NAMESPACE_NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)


@st.composite
def built(draw: st.DrawFn) -> tuple[str, str, dict[str, object]]:
    """A method and target as client-go's rest.Request builds them, and what they mean."""
    resource = draw(st.sampled_from(RESOURCES))
    verb = draw(st.sampled_from(list(Verb)))
    on_one = verb in (Verb.GET, Verb.UPDATE, Verb.PATCH, Verb.DELETE)
    is_list = verb in (Verb.LIST, Verb.WATCH, Verb.DELETE_COLLECTION)
    need_namespace = resource.namespaced and (on_one or verb is Verb.CREATE)
    namespace = draw(NAMESPACE_NAMES) if need_namespace or (resource.namespaced and draw(st.booleans())) else ""
    name = draw(NAMES) if on_one else ""
    subresource = "status" if verb in (Verb.UPDATE, Verb.PATCH) and draw(st.booleans()) else ""
    query: list[tuple[str, str]] = []
    meaning: dict[str, object] = {}
    if verb is Verb.WATCH:
        query.append(("watch", draw(st.sampled_from(["true", "1"]))))
    if is_list and draw(st.booleans()):
        labels = draw(st.sampled_from(["a=b", "a in (b,c),!d", "app.kubernetes.io/name!=x", "n>3"]))
        query.append(("labelSelector", labels))
        meaning["labels"] = parse_labels(labels)
    if is_list and draw(st.booleans()):
        fields = draw(st.sampled_from(["metadata.name=x", "spec.nodeName!=n,status.phase=Running"]))
        query.append(("fieldSelector", fields))
        meaning["fields"] = parse_fields(fields)
    if verb in (Verb.LIST, Verb.WATCH) and draw(st.booleans()):
        version = str(draw(st.integers(0, 10**15)))
        query.append(("resourceVersion", version))
        meaning["resource_version"] = version
    if verb is Verb.LIST and draw(st.booleans()):
        meaning["limit"] = draw(st.integers(0, 10**6))
        query.append(("limit", str(meaning["limit"])))
    if verb is Verb.WATCH and draw(st.booleans()):
        query += [("allowWatchBookmarks", "true"), ("timeoutSeconds", "495")]
        meaning |= {"bookmarks": True, "timeout_s": 495}
    if not verb.is_read and draw(st.booleans()):
        query += [("dryRun", "All"), ("fieldManager", "kubectl-edit"), ("fieldValidation", "Strict")]
        meaning |= {"dry_run": True, "field_manager": "kubectl-edit", "field_validation": "Strict"}
    method = {
        Verb.CREATE: "POST",
        Verb.UPDATE: "PUT",
        Verb.PATCH: "PATCH",
        Verb.DELETE: "DELETE",
        Verb.DELETE_COLLECTION: "DELETE",
    }.get(verb, "GET")
    path = resource.path(quote(namespace), quote(name, safe=""), subresource)
    target = f"{path}?{urlencode(query)}" if query else path
    return (
        method,
        target,
        meaning
        | {
            "verb": verb,
            "resource": resource,
            "namespace": namespace,
            "name": name,
            "subresource": subresource,
        },
    )


@given(built())
def test_what_a_client_builds_is_what_is_understood(example: tuple[str, str, dict[str, object]]) -> None:
    method, target, meaning = example
    request = parse(method, target, resolve)
    assert {name: getattr(request, name) for name in meaning} == meaning


@given(
    st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"]),
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                ["/", "api", "apis", "v1", "pods", "namespaces", "..", ".", "%2e%2e", "%2F", "%ff", "%00", "?", "&",
                 "=", "watch", "labelSelector", "resourceVersion", "limit", "continue", "status", "\x00", "é"]
            ),
            max_size=14,
        ).map("/".join),
    ),
)  # fmt: skip
def test_the_parser_answers_anything_with_a_request_or_an_error(method: str, target: str) -> None:
    try:
        request = parse(method, target, resolve)
    except ApiError:
        return
    for text in (request.name, request.namespace):
        assert text not in (".", "..")
        assert not set(text) & set("/%\x00")
    assert re.fullmatch(r"[0-9]*", request.resource_version)


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("/api/v1/namespaces/a/pods/b", (PODS, "a", "b", "")),
        ("/api/v1/namespaces/a/pods/b/status", (PODS, "a", "b", "status")),
        ("/api/v1/namespaces/a/pods/b/proxy/c/d", (PODS, "a", "b", "proxy/c/d")),
        ("/api/v1/namespaces/a", (NAMESPACES, "", "a", "")),
        ("/api/v1/namespaces/a/status", (NAMESPACES, "", "a", "status")),
        ("/api/v1/namespaces/a/finalize", (NAMESPACES, "", "a", "finalize")),
        ("/api/v1/namespaces/status/pods/x", (PODS, "status", "x", "")),
        ("/api/v1/nodes/system:x", (NODES, "", "system:x", "")),
        ("/apis/devices.kubeedge.io/v1beta1/namespaces/a/devices/t%2D1", (DEVICES, "a", "t-1", "")),
        ("/api/v1/pods/", (PODS, "", "", "")),
    ],
)
def test_paths(target: str, key: tuple[Resource, str, str, str]) -> None:
    request = parse("GET", target, resolve)
    assert (request.resource, request.namespace, request.name, request.subresource) == key


@pytest.mark.parametrize(
    ("method", "target", "error", "words"),
    [
        ("GET", "/", NotFound, "could not find the requested resource"),
        ("GET", "/api", NotFound, "requested resource"),
        ("GET", "/api/v1/unknown", NotFound, "requested resource"),
        ("GET", "/api/v2/pods", NotFound, "requested resource"),
        ("GET", "/apis//v1/pods", NotFound, "requested resource"),
        ("GET", "/api/v1/pods/x", NotFound, "requested resource"),
        ("GET", "/api/v1/namespaces/a/nodes/x", NotFound, "requested resource"),
        ("GET", "/api/v1/namespaces/a/pods/..", BadRequest, "may not be"),
        ("GET", "/api/v1/namespaces/a/pods/%2e%2e", BadRequest, "may not be"),
        ("GET", "/api/v1/namespaces/a/pods/b%2Fc", BadRequest, "may not contain"),
        ("GET", "/api/v1/namespaces/a/pods/b%2525", BadRequest, "may not contain"),
        ("GET", "/api/v1/namespaces/a/pods/%ff", BadRequest, "UTF-8"),
        ("GET", "/api/v1/namespaces/a/pods/%00", BadRequest, "control"),
        ("POST", "/api/v1/namespaces/a/pods/x", MethodNotAllowed, "POST"),
        ("POST", "/api/v1/pods", BadRequest, "in a namespace"),
        ("PUT", "/api/v1/nodes", MethodNotAllowed, "PUT"),
        ("BREW", "/api/v1/nodes", MethodNotAllowed, "BREW"),
        ("GET", "/api/v1/pods?labelSelector=a%3D%3D%3Db", BadRequest, "label selector"),
        ("GET", "/api/v1/pods?fieldSelector=x", BadRequest, "field selector"),
        ("GET", "/api/v1/pods?limit=many", BadRequest, "limit"),
        ("GET", "/api/v1/pods?limit=99999999999999999999", BadRequest, "limit"),
        ("GET", "/api/v1/pods?timeoutSeconds=1.5", BadRequest, "timeoutSeconds"),
        ("GET", "/api/v1/pods?resourceVersion=abc", Invalid, "resourceVersion"),
        ("GET", "/api/v1/pods?resourceVersion=-1", Invalid, "resourceVersion"),
        ("GET", "/api/v1/pods?resourceVersionMatch=Exact", Invalid, "unless resourceVersion is provided"),
        ("GET", "/api/v1/pods?resourceVersion=0&resourceVersionMatch=Exact", Invalid, "forbidden"),
        ("GET", "/api/v1/pods?resourceVersion=1&resourceVersionMatch=Older", Invalid, "Unsupported value"),
        ("GET", "/api/v1/pods?continue=x&resourceVersion=3", BadRequest, "when using continue"),
        ("GET", "/api/v1/pods?sendInitialEvents=true", Invalid, "forbidden for list"),
        ("GET", "/api/v1/pods?watch=1&sendInitialEvents=true", Invalid, "requires setting resourceVersionMatch"),
        ("GET", "/api/v1/pods?watch=1&resourceVersionMatch=NotOlderThan", Invalid, "unless sendInitialEvents"),
        ("GET", f"/api/v1/pods?resourceVersion={2**63}", Invalid, "resourceVersion"),
        ("DELETE", "/api/v1/nodes/x?dryRun=Some", Invalid, "dryRun"),
        ("PUT", "/api/v1/nodes/x?fieldValidation=Sure", Invalid, "fieldValidation"),
        ("GET", "/api/v1/pods?" + "&".join(f"a{n}=1" for n in range(100)), BadRequest, "query"),
        ("GET", "/api/v1/pods?labelSelector=%ff", BadRequest, "UTF-8"),
    ],
)  # fmt: skip
def test_refusals(method: str, target: str, error: type[ApiError], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        parse(method, target, resolve)


@pytest.mark.parametrize(
    ("query", "verb"),
    [
        ("", Verb.LIST),
        ("watch=true", Verb.WATCH),
        ("watch=1", Verb.WATCH),
        ("watch", Verb.WATCH),
        ("watch=", Verb.WATCH),
        ("watch=false", Verb.LIST),
        ("watch=0", Verb.LIST),
        ("watch=false&watch=true", Verb.LIST),
    ],
)
def test_what_counts_as_a_watch(query: str, verb: Verb) -> None:
    assert parse("GET", f"/api/v1/pods?{query}", resolve).verb is verb


def test_a_negative_limit_is_none() -> None:
    assert parse("GET", "/api/v1/pods?limit=-5", resolve).limit == 0


def test_initial_events_can_be_refused_asked_for_or_left_open() -> None:
    match = "resourceVersionMatch=NotOlderThan"  # without a version: as a new informer of client-go asks
    told = [
        parse("GET", f"/api/v1/pods?watch=1{rest}", resolve).initial_events
        for rest in ("", f"&{match}&sendInitialEvents=true", f"&{match}&sendInitialEvents=false")
    ]
    assert told == [None, True, False]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", Accepted()),
        ("*/*", Accepted()),
        ("application/json", Accepted()),
        ("application/vnd.kubernetes.protobuf,application/json", Accepted()),
        ("application/vnd.kubernetes.protobuf;q=1, */*;q=0.8", Accepted()),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,"
            "application/json",
            Accepted(Form.TABLE, "v1"),
        ),
        ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Accepted()),
        ("application/json;as=Table;g=meta.k8s.io;v=v1beta1", Accepted(Form.TABLE, "v1beta1")),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Accepted(Form.METADATA, "v1")),
        ("application/json;as=Pizza;g=meta.k8s.io;v=v1,application/json;q=0.9", Accepted()),
    ],
)
def test_forms_by_accept_header(header: str, expected: Accepted) -> None:
    assert accepted(header) == expected


@pytest.mark.parametrize("header", ["application/yaml", "application/vnd.kubernetes.protobuf", "application/json;q=0"])
def test_what_cannot_be_given_is_not_acceptable(header: str) -> None:
    with pytest.raises(NotAcceptable):
        accepted(header)


def test_segments_are_decoded_one_by_one() -> None:
    assert segments("/a%2Fb/c") == ["a/b", "c"]
    assert segments("/") == []
