"""
What goes in and out of an HTTP handler: one request, complete, and one answer, whole or as a stream.

Handlers and tests need no more of HTTP than this; `apiserver.http` turns it into bytes.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from apimachinery.errors import ApiError
from apiserver.users import User


@dataclass(frozen=True, slots=True)
class Request:
    """One request, complete with its body."""

    method: str
    target: str
    """As it stood in the request line: path and query, percent-encoded."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case; a repeated header's values are joined with commas."""
    body: bytes = b""
    peer: str = ""
    """HOST:PORT of the peer, "unix" for a socket file."""
    peer_certificate_cn: str | None = None
    """The common name in the peer's *verified* client certificate; None without one."""
    peer_certificate_organizations: tuple[str, ...] = ()
    """The organizations (O) in that certificate."""
    peer_certificate: bytes = b""
    """That certificate, in DER."""
    user: User | None = None
    """Who asks, where the handler in front has found out."""

    @property
    def path(self) -> str:
        """The target up to the query, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's decoded pairs in their order."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. A body that is an iterator is sent in chunks as it comes, and closed when the peer leaves."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | AsyncIterator[bytes] = b""


Handler = Callable[[Request], Awaitable[Response]]
"""May raise ApiError, which is answered as a Status object; anything else it raises is a bug and answered 500."""


def json_response(status: int, value: object, headers: list[tuple[str, str]] | None = None) -> Response:
    """A response with `value` as JSON."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(status, [("content-type", "application/json"), *(headers or ())], body)


def error_response(error: ApiError) -> Response:
    """A response with the error's Status object, and Retry-After where the error says when to come back."""
    headers = [] if error.retry_after_s is None else [("retry-after", str(error.retry_after_s))]
    return json_response(error.code, error.status(), headers)
