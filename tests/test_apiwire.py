"""Tests for cloudhub.apiwire."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import (
    ApiError,
    BadRequest,
    Conflict,
    Expired,
    Invalid,
    NotFound,
    Timeout,
    TooManyRequests,
    Unavailable,
)
from apimachinery.events import EventType
from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import DEVICES, NODES, PODS
from cloudhub.apiwire import Lines, error_in, event_of, page_of, path_of, segment, selection
from cloudhub.projection import project


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        ((PODS,), "/api/v1/pods"),
        ((PODS, "default"), "/api/v1/namespaces/default/pods"),
        ((PODS, "default", "web-0"), "/api/v1/namespaces/default/pods/web-0"),
        ((NODES, "", "edge-1", "status"), "/api/v1/nodes/edge-1/status"),
        ((DEVICES, "a b", "x?y"), "/apis/devices.kubeedge.io/v1beta1/namespaces/a%20b/devices/x%3Fy"),
        ((PODS, "default", "system:x"), "/api/v1/namespaces/default/pods/system:x"),
    ],
)
def test_paths(parts: tuple[object, ...], path: str) -> None:
    assert path_of(*parts) == path  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [".", ".."])
def test_a_name_that_would_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        path_of(PODS, "default", name)


@given(st.text(min_size=1))
def test_a_segment_stays_one_segment(text: str) -> None:
    try:
        encoded = segment(text)
    except (BadRequest, UnicodeEncodeError):
        return
    assert not set(encoded) & set("/?#\\ \r\n")


def test_empty_selectors_are_left_out() -> None:
    assert selection("", "") == {}
    assert selection("a=b", "c=d") == {"labelSelector": "a=b", "fieldSelector": "c=d"}


def test_an_item_of_a_list_reads_like_an_event() -> None:
    metadata = {"name": "n", "uid": "u", "resourceVersion": "7"}
    line = json.dumps({"type": "ADDED", "object": {"apiVersion": "v1", "kind": "Node", "metadata": metadata}})
    event = event_of(NODES, line.encode())
    listed = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [{"metadata": metadata}]}
    page = page_of(NODES, json.dumps(listed).encode())
    assert (page.resource_version, page.token) == ("9", "more")
    assert (event.type, event.resume_version) == (EventType.ADDED, "7")
    assert event.object is not None
    for sent in (event.object, *page.objects):
        assert (sent.key, sent.version) == (ObjectKey(NODES, "", "n"), ObjectVersion("u", "7"))
    assert [each.parse() for each in page.objects] == [event.object.parse()]
    assert [project(each) for each in page.objects] == [project(event.object)]


def test_a_list_of_nothing_is_a_list() -> None:
    """As Go writes an empty slice that was never made."""
    assert page_of(NODES, b'{"kind":"NodeList","metadata":{"resourceVersion":"9"},"items":null}') == ([], "9", "")


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"metadata":7}', b'{"items":[7]}', b"[" * 100_000])
def test_what_is_no_list_is_no_crash(content: bytes) -> None:
    with pytest.raises(Unavailable, match="list of nodes"):
        page_of(NODES, content)


def test_a_bookmark_has_a_version_and_no_object() -> None:
    event = event_of(PODS, b'{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9"}}}')
    assert event == (EventType.BOOKMARK, None, "9")


def test_an_error_in_the_stream_is_raised() -> None:
    status = Expired("too old").status()
    with pytest.raises(Expired):
        event_of(PODS, json.dumps({"type": "ERROR", "object": status}).encode())
    with pytest.raises(Expired):
        event_of(PODS, json.dumps({"type": "ERROR", "object": {**status, "reason": "Gone"}}).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"<html>",
        b"{}",
        b"[]",
        b'{"type":"ADDED","object":[]}',
        b'{"type":"WHAT","object":{"metadata":{"name":"a"}}}',
    ],
)
def test_rubbish_in_the_stream_is_no_crash(line: bytes) -> None:
    with pytest.raises(Unavailable, match="no event"):
        event_of(PODS, line)


@pytest.mark.parametrize(
    ("code", "body", "kind", "message"),
    [
        (404, NotFound("gone", name="x").status(), NotFound, "gone"),
        (409, Conflict("again").status(), Conflict, "again"),
        (422, Invalid("bad field").status(), Invalid, "bad field"),
        (404, "404 page not found", NotFound, "GET /x: 404"),
        (502, "<html>bad gateway</html>", Unavailable, "GET /x: 502"),
        (504, {"kind": "Status", "reason": "Timeout", "message": "late"}, Timeout, "late"),
        (418, [], BadRequest, "GET /x: 418"),
        (400, {"kind": "Status", "details": 7, "message": "m"}, BadRequest, "m"),
    ],
)
def test_errors(code: int, body: object, kind: type[ApiError], message: str) -> None:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    error = error_in(code, content, "", "GET /x")
    assert type(error) is kind
    assert str(error) == message


def test_when_to_come_back_is_in_the_header_or_the_details() -> None:
    assert error_in(429, b"", "3", "GET /x").retry_after_s == 3
    assert error_in(429, b"", "Wed, 21 Oct 2015 07:28:00 GMT", "GET /x").retry_after_s is None
    error = error_in(429, json.dumps(TooManyRequests("m", retry_after_s=5).status()).encode(), "3", "GET /x")
    assert error.retry_after_s == 5


def test_a_missing_object_has_a_name_and_a_missing_path_has_none() -> None:
    assert error_in(404, json.dumps(NotFound("m", name="thing").status()).encode(), "", "GET /x").name == "thing"
    assert error_in(404, b"404 page not found", "", "GET /x").name == ""


def test_causes_survive() -> None:
    body = {"kind": "Status", "details": {"causes": [{"field": "spec.a", "reason": "Bad", "message": "no"}, 5]}}
    error = error_in(422, json.dumps(body).encode(), "", "PUT /x")
    assert [tuple(cause) for cause in error.causes] == [("spec.a", "Bad", "no")]


@given(st.lists(st.text(alphabet="ab ", max_size=5), max_size=8), st.lists(st.integers(0, 60), max_size=8))
def test_lines_come_whole_however_they_are_cut(told: list[str], cuts: list[int]) -> None:
    stream, lines, found = "".join(f"{line}\n" for line in told).encode(), Lines(100), list[bytes]()
    places = [0, *sorted(cuts), len(stream)]
    for start, stop in itertools.pairwise(places):
        found += lines.take(stream[start:stop])
    assert found == [line.encode() for line in told if line]
    assert not lines.has_rest


def fed(*chunks: bytes) -> Lines:
    lines = Lines(10)
    for chunk in chunks:
        lines.take(chunk)
    return lines


def test_a_line_that_is_too_long_or_has_no_end_is_told() -> None:
    assert not fed(b"123456", b"7890").is_too_long
    assert fed(b"1\n123456", b"78901").is_too_long
    assert not fed(b"1\n123456", b"78901\n").is_too_long
    assert fed(b"1").has_rest
    assert not fed(b"1\n", b" \n ").has_rest
