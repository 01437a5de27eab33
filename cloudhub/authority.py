"""
How the hub proves to be itself and who nodes are: what is signed with the installation's CAs, and what is trusted.

The CAs sign the nodes' client certificates and the hub's server certificates, and nothing outside trusts them. Their
keys are in Secrets (cloudhub.cas), because every replica must be able to sign. A server certificate is not kept at all:
each process makes its own at start, for the names it is reached by, and again before it lapses or when the CAs change,
so replicas need not agree on names and there is no second secret to guard.

Invariants
    keys go to the TLS library through memory or a directory only this user can enter, and stay nowhere
    a node's certificate names that node, in the subject that Kubernetes gives nodes
    a server is to be trusted by whoever trusts any CA that is not dropped
"""

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from apimachinery.errors import ApiError, InternalError, Invalid
from apimachinery.keys import Node
from cloudhub import cas
from cloudhub.cas import Ca
from cloudhub.memoryfile import as_file
from cloudhub.settings import NODE_S
from cloudhub.vault import Vault
from componentbase import pki
from componentbase.certificates import validity
from componentbase.tls import LiveContext, TlsMin, admit_lapsed, server_context
from componentbase.words import rfc3339

logger = logging.getLogger(__name__)

SERVER_DAYS = 365
CROSS_DAYS = (
    2  # of a CA that is on its way out, by which servers of it are believed: what was shown cannot be taken back
)
RENEW_AT = 2 / 3
"""Of a server certificate's life."""

NODES_ORGANIZATION = "system:nodes"
NODE_PREFIX = "system:node:"
"""The subject of a node, as kube-apiserver's node authorizer expects it: O=system:nodes, CN=system:node:NAME."""

LOCAL_NAMES = (
    *("localhost", "127.0.0.1", "::1"),
    *("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
)
"""What a node's local API is reached by from the node and its pods, whatever its addresses are."""


T = TypeVar("T")

Show = Callable[[bytes, str], None]
"""Given a certificate with what stands behind it and its key, and the CAs that are trusted; all PEM."""
Others = Callable[[], Awaitable[bytes]]


class CaLapsed(InternalError):
    """The CA has expired: until there is another one, nobody gets a certificate."""


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Authority:
    """The installation's CAs, one or two. Get one with `load`."""

    def __init__(
        self,
        *found: Ca,
        node_s: float = NODE_S,
        now: Callable[[], datetime.datetime] = _now,
        others: Others | None = None,
    ) -> None:
        """
        found: the oldest first, one at least. node_s: how long nodes' certificates are valid.

        others: gives further CAs, PEM, of which nodes may show certificates. They sign nothing here.
        """
        self._cas = found
        self._others = others
        self._others_pem = b""
        self._node_days = node_s / 86400
        self._now = now

    @classmethod
    async def load(
        cls,
        vault: Vault,
        node_s: float = NODE_S,
        now: Callable[[], datetime.datetime] = _now,
        others: Others | None = None,
    ) -> "Authority":
        """Those of this cluster, made now when there is none. Raises ApiError; InternalError when one is damaged."""
        made = cls(*await cas.load_or_make(vault), node_s=node_s, now=now, others=others)
        made._others_pem = b"" if others is None else await others()
        return made

    async def reload(self, vault: Vault) -> bool:
        """
        Look again; whether they have changed. Raises ApiError as load(); then nothing has.

        Where others' cannot be read, those of before count on: our own must go on changing, and so must what hubs show.
        """
        found, others_pem = tuple(await cas.load_or_make(vault)), self._others_pem
        try:
            others_pem = b"" if self._others is None else await self._others()
        except (ApiError, OSError) as exc:
            logger.warning("the CAs of the cluster's clients cannot be read", extra={"problem": str(exc)})
        has_changed = (found, others_pem) != (self._cas, self._others_pem)
        self._cas, self._others_pem = found, others_pem
        return has_changed

    @property
    def pin(self) -> str:
        """What a join token carries: the newest one's. That of each that is trusted would do."""
        return self._cas[-1].pin

    @property
    def certificate_pem(self) -> bytes:
        """
        The certificates of all that are trusted, first the one that signs now.

        A node keeps what it is given with its certificate, and renews when what is shown differs: in the order, too,
        for it may have renewed while both were trusted already and the first one signed still.
        """
        signing = self._signing()
        return b"".join(each.pair.cert_pem for each in sorted(self._cas, key=lambda each: each != signing))

    @property
    def clients_pem(self) -> bytes:
        """The CAs of which nodes may show certificates: those, and others' where another one signs nodes."""
        return self.certificate_pem + self._others_pem

    @property
    def is_changing(self) -> bool:
        """Whether two are trusted, and cross-signatures shown, which do not last."""
        return len(self._cas) > 1

    @property
    def signer_pin(self) -> str:
        """Of the CA that signs now. Ask before it does: then a node counts as having the former one's, at worst."""
        return self._signing().pin

    def sign_node(self, csr_pem: bytes, node: Node) -> bytes:
        """
        The client certificate, in PEM, for a node that may have one.

        Invalid when the request is not for it; CaLapsed.
        """
        pair = self._signing().pair
        return _told(
            lambda: pki.sign_client_csr(pair, csr_pem, NODE_PREFIX + node, NODES_ORGANIZATION, self._node_days)
        )

    def requested_key(self, csr_pem: bytes, node: Node) -> str:
        """The key, see pki.key_id, of a request that a node may send. Raises as sign_node()."""
        return _told(lambda: pki.requested_key(csr_pem, NODE_PREFIX + node, NODES_ORGANIZATION))

    def sign_serving(self, csr_pem: bytes, node: Node, addresses: Iterable[str]) -> bytes:
        """
        The certificate, in PEM, with which a node serves its local API. Raises as sign_node().

        addresses: the node's own, besides loopback. Its subject is the node's, by which those who dial a hub tell it
        from a hub's (link.websocket), whatever the addresses are.
        """
        names = [*LOCAL_NAMES, *addresses]
        pair, subject = self._signing().pair, NODE_PREFIX + node
        return _told(lambda: pki.sign_server_csr(pair, csr_pem, subject, NODES_ORGANIZATION, names, self._node_days))

    def issue_server(self, names: Sequence[str]) -> pki.KeyPair:
        """
        A certificate for a hub, and its key; those who trust any of the CAs verify it. ValueError for names, CaLapsed.

        It is the oldest one's that still counts, with that one's cross-signatures behind it.
        """
        shown = next((at for at, each in enumerate(self._cas) if self._now() < each.expires), len(self._cas) - 1)
        made = _told(lambda: pki.issue_server_cert(self._cas[shown].pair, names, SERVER_DAYS))
        former = self._cas[shown].pair.cert_pem
        chain = [pki.cross_sign(each.pair, former, CROSS_DAYS) for each in self._cas[shown + 1 :]]
        return pki.KeyPair(b"".join((made.cert_pem, *chain)), made.key_pem)

    def server(
        self, names: Sequence[str], tls_min: TlsMin = TlsMin.TLS_1_3, *, show: "Show | None" = None
    ) -> "ServerIdentity":
        """What a server reached under these names and addresses shows; ValueError for what is neither, CaLapsed."""
        return ServerIdentity(self, names, tls_min, show)

    def _signing(self) -> Ca:
        """The newest whose time has come; another where that one has expired."""
        now = self._now()
        valid = [each for each in self._cas if now < each.expires] or list(self._cas)
        return next((each for each in reversed(valid) if each.signs_from <= now), valid[-1])


def _told(sign: Callable[[], T]) -> T:
    try:
        return sign()
    except pki.CsrRefused as exc:
        raise Invalid(f"the certificate signing request is refused: {exc.reason}") from exc
    except pki.CaExpired as exc:
        raise CaLapsed(
            f"{exc}, so nobody gets a certificate: an operator makes another CA with `cloudcore ca rotate`"
        ) from exc


class ServerIdentity:
    """
    One process's server certificate, in two TLS contexts: for the link and for the join endpoint.

    TLS 1.3 unless told otherwise: both ends are ours, and a node's name stays encrypted in the handshake.
    """

    def __init__(
        self,
        authority: Authority,
        names: Sequence[str],
        tls_min: TlsMin = TlsMin.TLS_1_3,
        show: "Show | None" = None,
    ) -> None:
        """show: another TLS library's, which is told now and with each certificate."""
        self._authority = authority
        self._show = show
        self._names = tuple(names)
        self._link = LiveContext(server_context(tls_min), ssl.CERT_REQUIRED)
        # Who joins has no certificate yet; who renews one shows it, also where it has lapsed (cloudhub.renewal).
        self._join = LiveContext(server_context(tls_min), ssl.CERT_OPTIONAL)
        admit_lapsed(self._join.context)
        self.link_context = self._link.context
        """Refuses whoever shows no certificate of these CAs made for clients."""
        self.join_context = self._join.context
        """Asks for one, and takes none for an answer, or one that has lapsed."""
        self.renew()

    def renew(self) -> None:
        """Take a new certificate; connections from now on see it, those that are open stay as they are. CaLapsed."""
        made = self._authority.issue_server(self._names)
        trusted = self._authority.clients_pem.decode()
        with as_file(made.cert_pem + made.key_pem) as path:
            self._link.replace(path, trusted)
            self._join.replace(path, trusted)
        if self._show is not None:
            self._show(made.cert_pem + made.key_pem, trusted)
        found = validity(made.cert_pem)
        self._renew_at = found.made + (found.lapses - found.made) * RENEW_AT
        if self._authority.is_changing:
            self._renew_at = min(self._renew_at, _now() + datetime.timedelta(days=CROSS_DAYS / 2))
        logger.info("server certificate made", extra={"names": list(self._names), "until": rfc3339(found.lapses)})

    async def keep_fresh(self, vault: Vault, reload_s: float, asked: asyncio.Event) -> None:
        """
        Follow the CAs, and renew at two thirds of each certificate's life and when asked, for ever; a task of its own.
        """
        is_due = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(reload_s):
                    await asked.wait()
            is_due = is_due or asked.is_set() or _now() >= self._renew_at
            asked.clear()
            try:
                if await self._authority.reload(vault):
                    logger.warning("the certificate authorities have changed", extra={"pin": self._authority.pin})
                    is_due = True
                if is_due:
                    await asyncio.to_thread(self.renew)
                    is_due = False
            except (ApiError, OSError) as exc:  # what there is goes on serving, also without a file descriptor left
                logger.warning("certificates not looked after, trying again", extra={"problem": str(exc)})


def server_names(listen_hosts: Iterable[str], advertise: Iterable[str]) -> list[str]:
    """
    Under which names and addresses this machine's servers should be found valid, what was advertised first.

    Always loopback and the machine's name; where a server listens on every address (an empty or wildcard
    host) also the addresses that packets to other networks leave from. Behind NAT or a load balancer
    nothing here can know the public name: that is what `advertise` is for. DNS is not asked: where it
    does not answer, that takes half a minute.
    """
    hosts = list(listen_hosts)
    found = [*advertise, *(host for host in hosts if not _is_wildcard(host))]
    if any(_is_wildcard(host) for host in hosts):
        found += _outgoing_addresses()
    found += [socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    return [name for name in dict.fromkeys(found) if _fits_certificate(name)]


def _is_wildcard(host: str) -> bool:
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _outgoing_addresses() -> list[str]:
    """This machine's address towards other networks, for IPv4 and IPv6 where it has them. Sends nothing."""
    found = []
    # Addresses reserved for documentation (RFC 5737, RFC 3849): connecting a datagram socket only picks a route.
    for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            found.append(str(probe.getsockname()[0]))
    return found


def _fits_certificate(name: str) -> bool:
    """Whether it can stand in a certificate: an address without a zone, or a name in ASCII."""
    try:
        return not getattr(ipaddress.ip_address(name), "scope_id", None)
    except ValueError:
        return bool(name) and name.isascii() and len(name) <= 253
