"""
Where a machine becomes a node: an HTTPS endpoint that trades a join token for a client certificate.

    GET  /v1/ca     the CA's certificate in PEM; open to all, the token's pin says whether it is the right one
    POST /v1/join   {"node": NAME, "csr": PEM, "token": TEXT, "serving": {"csr": PEM, "addresses": [IP]}}
                    → {"node": NAME, "certificate": PEM, "ca": PEM, "link": {"port": PORT, "path": PATH},
                       "serving": PEM}

`serving` may be left out: it is for the TLS of the node's own API.

Errors are Kubernetes Status objects whose message is a sentence for the person at the edge. The private
key stays at the edge: what comes here is a signing request, and asking twice with the same one gives a
certificate that is of use to the key's owner only.

Invariants
    nothing is signed without a valid token, and never for another name than the one asked for
    tokens, requests and certificates are not logged; the node's name and the token's id are
    failed attempts are counted per address in a table that cannot grow beyond FAILURES_TABLE
"""

import datetime
import ipaddress
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from apimachinery.errors import (
    ApiError,
    BadRequest,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from apimachinery.keys import Node
from apiserver.http import Request, Response, json_response
from cloudhub.authority import Authority
from cloudhub.tokens import Tokens

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 << 10  # a CSR is half a KiB with an EC key and two with a large RSA one
MAX_NAME = 52
"""X.509 allows 64 characters in a common name (RFC 5280, ub-common-name), of which `system:node:` takes 12."""

MAX_ADDRESSES = 16  # of a node; most have one, some one per network

FAILURES_ALLOWED = 10
"""Wrong tokens an address may present in a row. Guessing is hopeless anyway; this is so that it is cheap to refuse."""
FAILURE_FORGIVEN_S = 6.0
"""One failure is forgotten per this many seconds."""
FAILURES_TABLE = 4096
"""Addresses remembered; the one that failed longest ago is forgotten first."""

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class Link(NamedTuple):
    """Where the joined node finds the hub, on the host it joined through."""

    port: int
    path: str = "/v1/link"


class JoinEndpoint:
    """The handler for `apiserver.http.serve`; give serve MAX_BODY_BYTES as its limit."""

    def __init__(
        self,
        authority: Authority,
        tokens: Tokens,
        link: Link,
        *,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authority = authority
        self._tokens = tokens
        self._link = link
        self._now = now
        self._failures = Failures()
        self._monotonic_s = monotonic_s

    async def __call__(self, request: Request) -> Response:
        """Raises ApiError for whatever is refused, as serve() expects."""
        match request.path, request.method:
            case "/v1/ca", "GET" | "HEAD":
                pem = self._authority.certificate_pem
                return Response(200, [("content-type", "application/x-pem-file")], pem)
            case "/v1/join", "POST":
                return await self._join(request)
            case "/v1/ca" | "/v1/join", _:
                raise MethodNotAllowed(f"{request.method} is not for {request.path}")
            case _:
                raise NotFound("this is the join endpoint of cloudcore; `edgecore join` talks to it")

    async def _join(self, request: Request) -> Response:
        address = request.peer.rpartition(":")[0]
        wait_s = self._failures.wait_s(address, self._monotonic_s())
        if wait_s > 0:
            raise TooManyRequests(
                "too many wrong tokens from this address: wait a minute", retry_after_s=int(wait_s) + 1
            )
        node, csr, token, serving = _read(request.body)
        try:
            found = await self._tokens.check(token, node, self._now())
        except (Unauthorized, Forbidden) as exc:
            self._failures.add(address, self._monotonic_s())
            logger.warning("join refused", extra={"node": node, "peer": request.peer, "reason": str(exc)})
            raise
        except ApiError as exc:
            logger.warning("join not possible", extra={"node": node, "peer": request.peer, "reason": str(exc)})
            raise Unavailable(
                "cloudcore cannot read its tokens now: the apiserver does not answer", retry_after_s=5
            ) from exc
        certificate = self._authority.sign_node(csr, node)
        served = None if serving is None else self._authority.sign_serving(serving.csr, node, serving.addresses)
        logger.info("node joined", extra={"node": node, "peer": request.peer, "token": found.id})
        answer = {
            "node": node,
            "certificate": certificate.decode(),
            "ca": self._authority.certificate_pem.decode(),
            "link": {"port": self._link.port, "path": self._link.path},
        } | ({} if served is None else {"serving": served.decode()})
        return json_response(200, answer)


class Failures:
    """
    How often each address failed lately: a leaking bucket per address, in a table of bounded size.

    Pure: the time is an argument, in seconds of a clock that only goes forward.
    """

    def __init__(self) -> None:
        self._failed: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: (how many, as of when)

    def __len__(self) -> int:
        return len(self._failed)

    def add(self, address: str, now_s: float) -> None:
        """Count one failure."""
        self._failed[address] = (self._level(address, now_s) + 1, now_s)
        self._failed.move_to_end(address)
        if len(self._failed) > FAILURES_TABLE:
            self._failed.popitem(last=False)

    def wait_s(self, address: str, now_s: float) -> float:
        """How long this address must wait before it may try again; 0 when it need not."""
        return max(0.0, self._level(address, now_s) - FAILURES_ALLOWED + 1) * FAILURE_FORGIVEN_S

    def _level(self, address: str, now_s: float) -> float:
        count, as_of_s = self._failed.get(address, (0.0, now_s))
        return max(0.0, count - (now_s - as_of_s) / FAILURE_FORGIVEN_S)


def check_name(node: str) -> Node:
    """The name, if a Node of it can exist and fits a certificate; Invalid otherwise."""
    if len(node) > MAX_NAME:
        raise Invalid(f"the node name has {len(node)} characters, and a certificate has room for {MAX_NAME}")
    if not _NAME.fullmatch(node):
        raise Invalid(
            f"{json.dumps(node)} cannot be a node name: use lower-case letters, digits, '-' and '.', "
            "beginning and ending with a letter or digit"
        )
    return Node(node)


class Serving(NamedTuple):
    """What a node asks for to serve its own API."""

    csr: bytes
    addresses: tuple[str, ...]


def _read_serving(value: object) -> Serving | None:
    """Raises BadRequest or Invalid."""
    if value is None:
        return None
    csr, listed = (value.get("csr"), value.get("addresses")) if isinstance(value, dict) else (None, None)
    if not isinstance(csr, str) or not isinstance(listed, list) or len(listed) > MAX_ADDRESSES:
        raise BadRequest(f'"serving" must have a csr, and at most {MAX_ADDRESSES} addresses')
    if not csr.isascii():
        raise Invalid("the certificate signing request is not PEM")
    try:
        return Serving(csr.encode(), tuple(str(ipaddress.ip_address(each)) for each in listed))
    except ValueError:
        raise BadRequest('"serving.addresses" must be IP addresses') from None


def _read(body: bytes) -> tuple[Node, bytes, str, Serving | None]:
    """Node, signing requests and token of a request's body; BadRequest or Invalid when it is not one."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest("the request is not a JSON object")
    texts = [value.get(name) for name in ("node", "csr", "token")]
    for name, text in zip(("node", "csr", "token"), texts, strict=True):
        if not isinstance(text, str):
            raise BadRequest(f'"{name}" must be a string')
    node, csr, token = (str(text) for text in texts)
    if not csr.isascii():
        raise Invalid("the certificate signing request is not PEM")
    return check_name(node), csr.encode(), token, _read_serving(value.get("serving"))
