"""
Who the hub trusts and how it proves to be itself: the CA, kept in a Secret, and what is signed with it.

One CA per installation signs the nodes' client certificates and the hub's server certificates, and nothing
outside trusts it. Its key is in the Secret `fairlead-ca`, because every replica must be able to sign. A
server certificate is not kept at all: each process makes its own at start, for the names it is reached by,
and again before it lapses, so replicas need not agree on names and there is no second secret to guard.

Invariants
    the CA is made once: of two replicas that start at once, the loser takes the winner's
    keys go to the TLS library through memory or a directory only this user can enter, and stay nowhere
    a node's certificate names that node, in the subject that Kubernetes gives nodes
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from apimachinery.errors import AlreadyExists, InternalError, Invalid, NotFound
from apimachinery.keys import Node
from cloudhub.vault import NAMESPACE, Entry, Vault
from componentbase import pki

logger = logging.getLogger(__name__)

SECRET_NAME = "fairlead-ca"  # noqa: S105 - a Secret's name
CA_DAYS = 3650
SERVER_DAYS = 365
NODE_DAYS = 365  # until certificates are renewed by themselves, a node joins again once a year
RENEW_AFTER_S = SERVER_DAYS * 86400 * 2 / 3

NODES_ORGANIZATION = "system:nodes"
NODE_PREFIX = "system:node:"
"""The subject of a node, as kube-apiserver's node authorizer expects it: O=system:nodes, CN=system:node:NAME."""

LOCAL_NAMES = (
    *("localhost", "127.0.0.1", "::1"),
    *("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
)
"""What a node's local API is reached by from the node and its pods, whatever its addresses are."""

_KIND = "kubernetes.io/tls"
_CERTIFICATE, _KEY = "tls.crt", "tls.key"  # the fields kube-apiserver demands of that type


class Authority:
    """The installation's CA. Get one with `load`."""

    def __init__(self, ca: pki.KeyPair) -> None:
        self._ca = ca
        self.pin = pki.fingerprint(ca.cert_pem)
        """What a join token carries: SHA-256 of the certificate's DER, in hexadecimal."""

    @classmethod
    async def load(cls, vault: Vault) -> "Authority":
        """The CA of this cluster, made now when there is none. Raises ApiError; InternalError when it is damaged."""
        try:
            entry = await vault.get(SECRET_NAME)
        except NotFound:
            made = await asyncio.to_thread(pki.create_ca, "fairlead", CA_DAYS)
            try:
                entry = await vault.create(SECRET_NAME, _KIND, {_CERTIFICATE: made.cert_pem, _KEY: made.key_pem})
                logger.info("certificate authority made", extra={"pin": pki.fingerprint(made.cert_pem)})
            except AlreadyExists:
                entry = await vault.get(SECRET_NAME)
        return cls(_key_pair(entry))

    @property
    def certificate_pem(self) -> bytes:
        return self._ca.cert_pem

    def sign_node(self, csr_pem: bytes, node: Node) -> bytes:
        """The client certificate, in PEM, for a node that may have one. Invalid when the request is not for it."""
        try:
            return pki.sign_client_csr(self._ca, csr_pem, NODE_PREFIX + node, NODES_ORGANIZATION, NODE_DAYS)
        except pki.CsrRefused as exc:
            raise Invalid(f"the certificate signing request is refused: {exc.reason}") from exc

    def sign_serving(self, csr_pem: bytes, node: Node, addresses: Iterable[str]) -> bytes:
        """
        The certificate, in PEM, with which a node serves its local API. Invalid when the request is not for it.

        addresses: the node's own, besides loopback. Its subject is the node's, by which those who dial a hub tell it
        from a hub's (link.websocket), whatever the addresses are.
        """
        names = [*LOCAL_NAMES, *addresses]
        try:
            return pki.sign_server_csr(self._ca, csr_pem, NODE_PREFIX + node, NODES_ORGANIZATION, names, NODE_DAYS)
        except pki.CsrRefused as exc:
            raise Invalid(f"the certificate signing request is refused: {exc.reason}") from exc

    def server(self, names: Sequence[str]) -> "ServerIdentity":
        """What a server reached under these names and addresses shows; ValueError for what is neither."""
        return ServerIdentity(self._ca, names)


class ServerIdentity:
    """
    One process's server certificate, in two TLS contexts: for the link and for the join endpoint.

    TLS 1.3 only: both ends are ours, and a node's name stays encrypted in the handshake.
    """

    def __init__(self, ca: pki.KeyPair, names: Sequence[str]) -> None:
        self._ca = ca
        self._names = tuple(names)
        self.link_context = _server_context()
        """Refuses whoever shows no certificate of this CA made for clients."""
        self.link_context.verify_mode = ssl.CERT_REQUIRED
        self.link_context.load_verify_locations(cadata=ca.cert_pem.decode())
        self.join_context = _server_context()
        """Asks for no certificate: who joins has none yet."""
        self.renew()

    def renew(self) -> None:
        """Take a new certificate; connections from now on see it, those that are open stay as they are."""
        made = pki.issue_server_cert(self._ca, self._names, SERVER_DAYS)
        with _as_file(made.cert_pem + made.key_pem) as path:
            self.link_context.load_cert_chain(path)
            self.join_context.load_cert_chain(path)
        logger.info("server certificate made", extra={"names": list(self._names)})

    async def keep_fresh(self) -> None:
        """Renew for ever, at two thirds of each certificate's life; a task of its own."""
        while True:
            await asyncio.sleep(RENEW_AFTER_S)
            await asyncio.to_thread(self.renew)


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


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # asyncio cannot resume a session, so nobody would show one; and without them a handshake takes a quarter less.
    context.num_tickets = 0
    return context


def _key_pair(entry: Entry) -> pki.KeyPair:
    try:
        pair = pki.KeyPair(entry.fields[_CERTIFICATE], entry.fields[_KEY])
        # Using it once is the check that it is whole: certificate, key, and that one belongs to the other.
        pki.issue_server_cert(pair, ["localhost"], 1)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(cadata=pair.cert_pem.decode())
        with _as_file(pair.cert_pem + pair.key_pem) as path:
            context.load_cert_chain(path)
    except (KeyError, ValueError, TypeError, ssl.SSLError, pki.PkiError) as exc:
        raise InternalError(
            f"the Secret {NAMESPACE}/{SECRET_NAME} does not hold a usable CA ({exc}): restore it, "
            "or delete it to start over with a new CA, which every node must then join again"
        ) from exc
    return pair


@contextlib.contextmanager
def _as_file(secret: bytes) -> Iterator[str]:
    """A path to read the secret from while the block lasts: ssl takes keys from files only."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("fairlead", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, secret)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory(prefix="fairlead-") as folder:  # of mode 0700
        path = Path(folder, "key")
        path.write_bytes(secret)
        yield str(path)


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
