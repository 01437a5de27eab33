"""What handlers take and give: targets, queries, errors as Status objects."""

import json

import pytest

from apimachinery.errors import Expired, Unavailable
from apiserver.messages import Request, error_response, json_response


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/api/v1/pods", "/api/v1/pods", []),
        ("/a%20b?x=%2F&x=2&empty=", "/a%20b", [("x", "/"), ("x", "2"), ("empty", "")]),
        ("/?a=b?c", "/", [("a", "b?c")]),
    ],
)
def test_a_target_is_cut_at_its_first_question_mark(target: str, path: str, query: list[tuple[str, str]]) -> None:
    request = Request("GET", target)
    assert (request.path, request.query) == (path, query)


def test_an_error_is_answered_as_a_status_with_its_code() -> None:
    response = error_response(Expired("too old"))
    assert isinstance(response.body, bytes)
    status = json.loads(response.body)
    assert (response.status, status["code"], status["reason"]) == (410, 410, "Expired")
    assert "retry-after" not in dict(response.headers)


def test_an_error_says_when_to_come_back() -> None:
    assert dict(error_response(Unavailable("not yet", retry_after_s=7)).headers)["retry-after"] == "7"


def test_json_is_compact_and_keeps_its_letters() -> None:
    response = json_response(200, {"a": "ü"})
    assert response.body == '{"a":"ü"}'.encode()
