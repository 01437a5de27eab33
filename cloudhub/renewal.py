"""
How a node gets its next certificate: by showing the one it has, to the join endpoint, over mutual TLS.

    POST /v1/renew     {"csr": PEM, "serving": {"csr": PEM, "addresses": [IP]}}
                       → {"node": NAME, "certificate": PEM, "ca": PEM, "link": {"port": PORT, "path": PATH},
                          "serving": PEM}                                        as a join is answered, also with 202
    POST /v1/renewed   {}  → {"node": NAME}    with the new certificate: it is on the disk there

TLS has seen that the certificate is of our CAs, made for clients, and that its key is there. It has not looked at the
clock (componentbase.tls.admit_lapsed): how long after its end a certificate still renews is policy, and decided here.

Between the two requests both keys count, so that an answer that is lost costs nobody his place; after the second only
the new one does, and the first CA of a rotation knows one node less that needs it.

Invariants
    who asks is who the certificate names; the request has no say in it
    a key that the name no longer has gets nothing, however long its certificate is still valid
    no certificate leaves before it is written down that the name has its key
"""

import datetime
import logging
from collections.abc import Callable
from typing import NamedTuple, Protocol

from apimachinery.errors import BadRequest, Invalid
from apimachinery.keys import Node
from apiserver.http import Request, Response, json_response
from cloudhub.authority import NODE_PREFIX, NODES_ORGANIZATION, Authority
from cloudhub.joincounts import JoinCounts
from cloudhub.keyturns import HOUR_S
from cloudhub.requests import Link, Serving, read_object, read_serving
from cloudhub.roster import RenewalRefused, Roster
from cloudhub.signers import RENEWAL, Issued, NodeSigner, Waiting, Wanted, come_again
from componentbase import pki
from componentbase.certificates import pem_of, validity
from componentbase.words import rfc3339

logger = logging.getLogger(__name__)


class Shown(NamedTuple):
    """Whose certificate a request came with."""

    node: Node
    key: str
    """See pki.key_id."""
    lapses: datetime.datetime
    lifetime_s: float


class TakeTurn(Protocol):
    """Raises cloudhub.keyturns.NotYet."""

    async def __call__(self, wanted: Wanted, within_s: float, *, is_asked: bool) -> None: ...


class Renewals:
    """Answers the two requests. Raises ApiError for what is refused."""

    def __init__(
        self,
        authority: Authority,
        signer: NodeSigner,
        roster: Roster,
        link: Link,
        window_s: float,
        now: Callable[[], datetime.datetime],
        counts: JoinCounts,
        take_turn: TakeTurn,
    ) -> None:
        """window_s: for how long after its end a certificate may still be renewed; 0 for not at all."""
        self._authority = authority
        self._signer = signer
        self._take_turn = take_turn
        self._counts = counts
        self._roster = roster
        self._link = link
        self._window = datetime.timedelta(seconds=window_s)
        self._now = now

    async def renew(self, request: Request) -> Response:
        shown, csr, serving = self._may_ask(request), *_read(request.body)
        node = shown.node
        if (refusal := await self._roster.may_renew(node, shown.key)) is not None:
            raise RenewalRefused(refusal)
        ca, trusted = self._authority.signer_pin, self._authority.certificate_pem.decode()
        key = self._authority.requested_key(csr, node)
        if key == shown.key:
            raise Invalid("the certificate signing request has the old key: make a new one each time")
        served = None if serving is None else self._authority.sign_serving(serving.csr, node, serving.addresses)
        wanted = Wanted(node, csr, key, RENEWAL, request.peer)
        issued = await self._signer.found(wanted)
        if not isinstance(issued, Waiting):
            # What lives for less than an hour, as in tests, is renewed more often.
            await self._take_turn(wanted, min(HOUR_S, max(1.0, shown.lifetime_s)), is_asked=issued is not None)
        if not isinstance(issued, Issued):
            issued = await self._signer.ask(wanted)
        if isinstance(issued, Waiting):
            logger.info("renewal waits", extra={"node": node, "peer": request.peer, "for": issued.text})
            self._counts.waiting += 1
            return come_again(node, issued)
        certificate = issued.certificate
        await self._roster.renew(node, shown.key, key, pki.not_after(certificate), ca)
        self._counts.renewed += 1
        late_s = (self._now() - shown.lapses).total_seconds()
        logger.info("certificate renewed", extra={"node": node, "peer": request.peer, "late_s": max(0, round(late_s))})
        return json_response(
            200,
            {
                "node": node,
                "certificate": certificate.decode(),
                "ca": trusted,
                "link": self._link._asdict(),
            }
            | ({} if served is None else {"serving": served.decode()}),
        )

    async def confirm(self, request: Request) -> Response:
        shown = self._may_ask(request)
        await self._roster.confirm(shown.node, shown.key)
        return json_response(200, {"node": shown.node})

    def _may_ask(self, request: Request) -> Shown:
        """Raises RenewalRefused."""
        shown = _shown(request)
        if (refusal := too_late(shown.node, shown.lapses, self._now(), self._window)) is not None:
            raise RenewalRefused(refusal)
        return shown


def too_late(node: Node, lapses: datetime.datetime, now: datetime.datetime, window: datetime.timedelta) -> str | None:
    """Why a certificate that lapses then renews no more, as a sentence; None where it does."""
    if now < lapses + window:
        return None
    days = f"{window.total_seconds() / 86400:g} days" if window else "no time at all"
    return (
        f"the certificate of {node} lapsed at {rfc3339(lapses)} and may be renewed for {days} "
        f"after that (join.renewalWindowSeconds): join again, with a token from "
        f"`cloudcore token create --replace --nodes {node}`"
    )


def _shown(request: Request) -> Shown:
    name = request.peer_certificate_cn or ""
    if not request.peer_certificate:
        raise RenewalRefused("a node renews by showing the certificate that it has, and there is none")
    if not name.startswith(NODE_PREFIX) or request.peer_certificate_organizations != (NODES_ORGANIZATION,):
        raise RenewalRefused("the certificate is not a node's")
    pem = pem_of(request.peer_certificate)
    found = validity(pem)
    return Shown(Node(name.removeprefix(NODE_PREFIX)), pki.key_id(pem), found.lapses, found.lifetime_s)


def _read(body: bytes) -> tuple[bytes, Serving | None]:
    """Raises BadRequest or Invalid."""
    value = read_object(body)
    csr = value.get("csr")
    if not isinstance(csr, str):
        raise BadRequest('"csr" must be a string')
    if not csr.isascii():
        raise Invalid("the certificate signing request is not PEM")
    return csr.encode(), read_serving(value.get("serving"))
