"""API errors as they come and go."""

import pytest

from apimachinery.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Cause,
    Conflict,
    Expired,
    Invalid,
    TooManyRequests,
    Unavailable,
    from_status,
    is_retriable,
)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (409, "", Conflict),
        (410, "Gone", Expired),
        (410, "Expired", Expired),
        (429, "", TooManyRequests),
        (418, "Teapot", BadRequest),
        (599, "", Unavailable),
    ],
)
def test_a_response_becomes_the_error_a_caller_can_act_on(code: int, reason: str, kind: type[ApiError]) -> None:
    error = from_status(code, reason, "because")
    assert type(error) is kind
    assert str(error) == "because"


def test_a_status_names_the_object_and_each_wrong_field() -> None:
    error = Invalid(
        "no", causes=[Cause("spec.x", "FieldValueInvalid", "must be 1")], kind="devices", name="d", group="g"
    )
    assert error.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "no",
        "reason": "Invalid",
        "code": 422,
        "details": {
            "name": "d",
            "group": "g",
            "kind": "devices",
            "causes": [{"reason": "FieldValueInvalid", "message": "must be 1", "field": "spec.x"}],
        },
    }
    assert Unavailable("later", retry_after_s=3).status()["details"] == {"retryAfterSeconds": 3}


def test_only_what_time_can_cure_is_retried() -> None:
    assert is_retriable(Conflict("x"))
    assert is_retriable(TooManyRequests("x"))
    assert is_retriable(Unavailable("x"))
    assert not is_retriable(AlreadyExists("x"))
    assert not is_retriable(Invalid("x"))
    assert not is_retriable(Expired("x"))
