"""
Errors of the Kubernetes API, as they travel: an HTTP status, a machine-readable reason, a sentence.

    ApiError
    ├── BadRequest      400  fix the request
    ├── Unauthorized    401  present credentials
    ├── Forbidden       403  ask for permission
    ├── NotFound        404  it is not there
    ├── MethodNotAllowed 405 this resource has no such verb
    ├── NotAcceptable   406  ask for JSON
    ├── AlreadyExists   409  take another name
    ├── Conflict        409  read again and retry
    ├── Expired         410  list again
    ├── TooLarge        413  send less
    ├── UnsupportedMediaType 415
    ├── Invalid         422  correct the named fields
    ├── TooManyRequests 429  wait, then retry
    ├── InternalError   500
    ├── Unavailable     503  wait, then retry
    └── Timeout         504  what was asked for is not there yet: wait, then retry

The reasons are those of k8s.io/apimachinery metav1.StatusReason, because clients switch on them.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple


class Cause(NamedTuple):
    """One field that was wrong, in the words kubectl prints."""

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """An answer other than success from a Kubernetes API, ours or anybody's."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: int | None = None,
        causes: Sequence[Cause] = (),
        kind: str = "",
        group: str = "",
        name: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.causes = tuple(causes)
        self.kind = kind
        self.group = group
        self.name = name

    def __str__(self) -> str:
        return self.message

    def status(self) -> dict[str, object]:
        """The `Status` object that goes into the response body."""
        details: dict[str, object] = {}
        for field, value in (("name", self.name), ("group", self.group), ("kind", self.kind)):
            if value:
                details[field] = value
        if self.causes:
            details["causes"] = [
                {"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in self.causes
            ]
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.code,
        }


class BadRequest(ApiError):
    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(ApiError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(ApiError):
    code, reason = 409, "AlreadyExists"


class Conflict(ApiError):
    code, reason = 409, "Conflict"


class Expired(ApiError):
    """The asked-for revision is no longer in the window: list again."""

    code, reason = 410, "Expired"


class TooLarge(ApiError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    code, reason = 422, "Invalid"


class TooManyRequests(ApiError):
    code, reason = 429, "TooManyRequests"


class InternalError(ApiError):
    code, reason = 500, "InternalError"


class Unavailable(ApiError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(ApiError):
    """The state asked for has not been reached."""

    code, reason = 504, "Timeout"


_BY_REASON = {
    kind.reason: kind
    for kind in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        NotAcceptable,
        AlreadyExists,
        Conflict,
        Expired,
        TooLarge,
        UnsupportedMediaType,
        Invalid,
        TooManyRequests,
        InternalError,
        Unavailable,
        Timeout,
    )
}
_BY_CODE = {kind.code: kind for kind in _BY_REASON.values()} | {409: Conflict}
# etcd-backed servers say "Gone" where newer ones say "Expired"; both mean: list again.
_BY_REASON["Gone"] = Expired


def from_status(code: int, reason: str, message: str, retry_after_s: int | None = None) -> ApiError:
    """The error a response stands for. An unknown reason falls back on the code, an unknown code on its class."""
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code)
    if kind is None:
        kind = BadRequest if 400 <= code < 500 else Unavailable
    return kind(message or f"the server answered {code}", retry_after_s=retry_after_s)


def is_retriable(error: ApiError) -> bool:
    """Whether the same request may succeed later without anybody changing anything."""
    return (error.code in (409, 429) and not isinstance(error, AlreadyExists)) or error.code >= 500
