"""
Where a machine becomes a node: an HTTPS endpoint that trades a join token for a client certificate.

    GET  /v1/ca     the CAs' certificates in PEM; open to all, the token's pin says which is the right one
    POST /v1/join   {"node": NAME, "csr": PEM, "token": TEXT, "serving": {"csr": PEM, "addresses": [IP]}}
                    → {"node": NAME, "certificate": PEM, "ca": PEM, "link": {"port": PORT, "path": PATH},
                       "serving": PEM}
                    → 202 {"node": NAME, "message": TEXT}, Retry-After: it waits for somebody, ask the same again
    POST /v1/check  {"node": NAME, "csr": PEM, "token": TEXT}
                    → {"node": NAME, "expires": TIME, "link": {"port": PORT, "path": PATH}, "notice": TEXT}

`serving` may be left out: it is for the TLS of the node's own API. A check is answered as a join with the same token
would be, and changes nothing: the token is not used by it. Its `csr` is for a machine that has asked before with this
key and has no answer yet; others leave it out.

Nodes renew what they have here, too: POST /v1/renew and /v1/renewed are cloudhub.renewal's.

Errors are Kubernetes Status objects whose message is a sentence for the person at the edge. The private
key stays at the edge: what comes here is a signing request, and asking twice with the same one gives a
certificate that is of use to the key's owner only.

Invariants
    nothing is signed without a valid token, or the certificate that it replaces, and never for another name
    no certificate leaves before it is written down that the token was used and that the name has this key
    tokens, requests and certificates are not logged; the node's name and the token's id are
    what an address may ask for is limited, and so is what all may, in a table that cannot grow (cloudhub.buckets)
"""

import datetime
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from apimachinery.errors import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Invalid,
    MethodNotAllowed,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from apimachinery.keys import Node
from apimachinery.nodenames import problem
from apiserver.http import Request, Response, json_response
from cloudhub.authority import Authority, CaLapsed
from cloudhub.buckets import Buckets, Rate
from cloudhub.joincounts import JoinCounts
from cloudhub.keyturns import HOUR_S, TOKENS, WAITING_MOST, NotYet, Turns
from cloudhub.renewal import Renewals
from cloudhub.requests import Link, Serving, read_object, read_serving
from cloudhub.roster import Banned, RenewalRefused, Roster
from cloudhub.settings import WINDOW_S
from cloudhub.signers import (
    Issued,
    NodeSigner,
    OwnSigner,
    SignerNotTrusted,
    SigningDenied,
    Waiting,
    Wanted,
    come_again,
)
from cloudhub.tokens import BadToken, NotForThisNode, Presented, Tokens, fresh, unused
from componentbase import pki
from componentbase.endpoints import origin_of

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 16 << 10  # a CSR is half a KiB with an EC key and two with a large RSA one
MAX_CONNECTIONS_EACH = 64  # of one address: a machine needs one at a time, and behind a NAT they come by the dozen
IDLE_S = 10.0  # a machine that joins says at once what it wants
EACH = Rate(per_s=20, burst=1200)
"""Of one address: a fleet may be behind one NAT. Ten guesses in a row, and then ten a minute."""
OVERALL = Rate(per_s=30, burst=600)
"""Of all together. A join costs cloudcore 20 ms of processor, and the apiserver five requests and 11."""
GUESS_EACH, GUESS_OVERALL = 120, 5
"""What a wrong token costs beyond that. Guessing is hopeless anyway; this keeps the log and the apiserver quiet."""
ORIGINS = 8192
"""Addresses remembered, some 2 MB: those that can be let in while one's bucket fills, and who is still being served."""


class JoinEndpoint:
    """The handler for `apiserver.http.serve`; give serve MAX_BODY_BYTES as its limit."""

    def __init__(
        self,
        authority: Authority,
        tokens: Tokens,
        roster: Roster,
        link: Link,
        *,
        signer: NodeSigner | None = None,
        window_s: float = WINDOW_S,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """signer: the authority by default. window_s: for how long after its end a certificate may be renewed."""
        self._authority = authority
        self._signer = OwnSigner(authority) if signer is None else signer
        self.counts = JoinCounts()
        self._renewals = Renewals(authority, self._signer, roster, link, window_s, now, self.counts, self._take_turn)
        self._tokens = tokens
        self._roster = roster
        self._link = link
        self._now = now
        self._monotonic_s = monotonic_s
        self._buckets = Buckets(EACH, OVERALL, ORIGINS, monotonic_s())
        self._turns = Turns()
        self._waiting = Turns(WAITING_MOST, TOKENS)

    async def __call__(self, request: Request) -> Response:
        """Raises ApiError for whatever is refused, as serve() expects."""
        match request.path, request.method:
            case "/v1/ca", "GET" | "HEAD":
                pem = self._authority.certificate_pem
                return Response(200, [("content-type", "application/x-pem-file")], pem)
            case "/v1/join", "POST":
                return await self._guarded(request, self._join)
            case "/v1/check", "POST":
                return await self._guarded(request, self._check)
            case "/v1/renew", "POST":
                return await self._renewing(request, self._renewals.renew)
            case "/v1/renewed", "POST":
                return await self._renewing(request, self._renewals.confirm)
            case "/v1/ca" | "/v1/join" | "/v1/check" | "/v1/renew" | "/v1/renewed", _:
                raise MethodNotAllowed(f"{request.method} is not for {request.path}")
            case _:
                raise NotFound("this is the join endpoint of cloudcore; `edgecore join` talks to it")

    async def _guarded(self, request: Request, answer: Callable[["_Asked"], Awaitable[Response]]) -> Response:
        """What joining and checking have in common."""
        origin = self._enter(request)
        asked = _read(request.body)
        return await self._told(origin, asked.node, request.peer, answer(asked._replace(peer=request.peer)))

    async def _renewing(self, request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        origin = self._enter(request)
        return await self._told(origin, request.peer_certificate_cn or "", request.peer, answer(request))

    def _enter(self, request: Request) -> str:
        """Whom it counts for; TooManyRequests where that one, or all, may not ask yet."""
        origin = origin_of(request.peer.rpartition(":")[0])
        if (wait_s := self._buckets.enter(origin, self._monotonic_s())) > 0:
            wait = math.ceil(wait_s)
            self.counts.refuse(TooManyRequests)
            raise TooManyRequests(
                f"too many requests to join, from this address or from all: come back in {wait} s", retry_after_s=wait
            )
        return origin

    async def _told(self, origin: str, node: str, peer: str, answer: Awaitable[Response]) -> Response:
        """What becomes of errors that are not the asker's, and of his."""
        facts = {"node": node, "peer": peer}
        try:
            return await answer
        except (BadToken, NotForThisNode) as exc:
            self._buckets.charge(origin, GUESS_EACH, GUESS_OVERALL, self._monotonic_s())
            logger.warning("join refused", extra={**facts, "reason": str(exc)})
            self.counts.refuse(type(exc))
            raise
        except (AlreadyExists, BadRequest, Banned, Invalid, NotYet, RenewalRefused, SigningDenied) as exc:
            logger.warning("join refused", extra={**facts, "reason": str(exc)})
            self.counts.refuse(type(exc))
            raise
        except (CaLapsed, SignerNotTrusted) as exc:
            logger.error("nobody can join", extra={**facts, "reason": str(exc)})
            self.counts.refuse(type(exc))
            raise
        except ApiError as exc:
            self.counts.refuse(Unavailable)
            logger.warning("join not possible", extra={**facts, "reason": str(exc)})
            raise Unavailable(
                "cloudcore cannot read or write its tokens and names now: the apiserver does not answer, or refuses; "
                "cloudcore's log says which",
                retry_after_s=5,
            ) from exc

    async def _check(self, asked: "_Asked") -> Response:
        now = self._now()
        token = (await self._presented(asked)).token
        key = self._authority.requested_key(asked.csr, asked.node) if asked.csr else ""
        unused(token, now, key, asked.node, self._tokens.repeat_s)
        await self._roster.check(asked.node, token, key, now)
        answer = {"node": asked.node, "expires": token.expires.isoformat(), "link": self._link._asdict()}
        return json_response(200, answer | ({"notice": notice} if (notice := self._signer.notice) else {}))

    async def _join(self, asked: "_Asked") -> Response:
        node, serving = asked.node, asked.serving
        presented = await self._presented(asked)
        wanted = self._wanted(asked, presented)
        ca, trusted = self._authority.signer_pin, self._authority.certificate_pem.decode()
        served = None if serving is None else self._authority.sign_serving(serving.csr, node, serving.addresses)
        issued = await self._signed(presented, wanted, ca)
        if isinstance(issued, Waiting):
            facts = {"node": node, "peer": asked.peer, "token": presented.token.id}
            logger.info("join waits", extra={**facts, "for": issued.text})
            self.counts.waiting += 1
            return come_again(node, issued)
        self.counts.joined += 1
        logger.info("node joined", extra={"node": node, "peer": asked.peer, "token": presented.token.id})
        answer = {
            "node": node,
            "certificate": issued.certificate.decode(),
            "ca": trusted,
            "link": self._link._asdict(),
        } | ({} if served is None else {"serving": served.decode()})
        return json_response(200, answer)

    async def _presented(self, asked: "_Asked") -> Presented:
        """The token, if it is good now, or was when a hub made the request that it is shown for. Raises BadToken."""
        now, late_s = self._now(), self._tokens.repeat_s
        presented = await self._tokens.check(asked.token, asked.node, now, late_s=late_s)
        try:
            fresh(presented.token, now)
        except BadToken:
            if not asked.csr:
                raise
            wanted = self._wanted(asked, presented)
            found = await self._signer.found(wanted)
            if found is None or found.vouched != wanted.vouched:
                raise
        return presented

    def _wanted(self, asked: "_Asked", presented: Presented) -> Wanted:
        key = self._authority.requested_key(asked.csr, asked.node)
        return Wanted(asked.node, asked.csr, key, f"token {presented.token.id}", asked.peer)

    async def _take_turn(self, wanted: Wanted, within_s: float, *, is_asked: bool) -> None:
        """NotYet where another key of this node is waited for, or there were too many. is_asked: this one already."""
        node, key, now_s = wanted.node, wanted.key, self._monotonic_s()
        last = self._turns.last(node)
        if not is_asked and last is not None and last.key != key:
            is_open = await self._signer.is_open(node, last.key, now_s - last.at_s)
            if is_open or self._turns.last(node) != last:  # another one was quicker
                raise NotYet(
                    f"another key has asked for a certificate of {node}, and that is not decided: approve or deny it "
                    f"(`kubectl get csr -l fairlead.io/node={node}` shows it), or come back in an hour",
                    retry_after_s=60,
                )
        if (wait_s := self._turns.take(node, key, now_s, within_s)) > 0:
            wait = math.ceil(wait_s)
            raise NotYet(f"too many certificates were asked for as {node}: come back in {wait} s", retry_after_s=wait)

    async def _signed(self, presented: Presented, wanted: Wanted, ca: str) -> Issued | Waiting:
        """
        The certificate, once it is written down that this node has it now. ca: the pin of our CA that signs now.

        The name is looked at first and written last: where it is taken, the token is not used up; and where the process
        dies between, the token's user comes again with the same key.
        """
        node, key, now, token = wanted.node, wanted.key, self._now(), presented.token
        found = await self._signer.found(wanted)
        seen = await self._roster.check(node, token, key, now)
        # Whoever waits asks again and again, and uses the token once.
        if token.grant.is_single_use or found is None or found.vouched != wanted.vouched:
            await self._tokens.use(presented, node, key, now)
        if found is None:
            if (wait_s := self._waiting.wait_s(token.id, self._monotonic_s())) > 0:
                raise NotYet(
                    f"too many requests with the token {token.id} wait for somebody who decides: approve or deny them, "
                    f"and come back in {math.ceil(wait_s)} s",
                    retry_after_s=math.ceil(wait_s),
                )
            await self._take_turn(wanted, HOUR_S, is_asked=False)
        issued = found if isinstance(found, Issued) else await self._signer.ask(wanted)
        if found is None and isinstance(issued, Waiting):
            self._waiting.take(token.id, key, self._monotonic_s())
        if isinstance(issued, Issued):
            await self._roster.claim(seen, token, key, pki.not_after(issued.certificate), now, ca)
        return issued


def check_name(node: str) -> Node:
    """The name, if a Node of it can exist and fits a certificate; Invalid otherwise."""
    if reason := problem(node):
        raise Invalid(reason)
    return Node(node)


class _Asked(NamedTuple):
    """A request, its form checked."""

    node: Node
    token: str
    csr: bytes
    serving: Serving | None
    peer: str = ""


def _read(body: bytes) -> _Asked:
    """What a request's body says; BadRequest or Invalid when it is not one. A check has no "csr"."""
    value = read_object(body)
    texts = {name: value.get(name) for name in ("node", "token")} | {"csr": value.get("csr", "")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise BadRequest(f'"{name}" must be a string')
    node, token, csr = (str(text) for text in texts.values())
    if not csr.isascii():
        raise Invalid("the certificate signing request is not PEM")
    return _Asked(check_name(node), token, csr.encode(), read_serving(value.get("serving")))
