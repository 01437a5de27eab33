"""Certificates for tests: one CA, a hub, nodes."""

import ssl
from collections.abc import Sequence
from pathlib import Path

from componentbase import pki


def contexts(directory: Path, names: list[str], nodes: list[str]) -> tuple[ssl.SSLContext, list[ssl.SSLContext]]:
    """(hub's, one per node) of one CA made for this call."""
    ca = pki.create_ca("test", 1)
    server = pki.issue_server_cert(ca, names, 1)
    (directory / "ca").write_bytes(ca.cert_pem)
    (directory / "server").write_bytes(server.cert_pem + server.key_pem)
    hub = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca"))
    hub.verify_mode = ssl.CERT_REQUIRED
    hub.load_cert_chain(directory / "server")
    return hub, [_node_context(directory, ca, node) for node in nodes]


def _node_context(directory: Path, ca: pki.KeyPair, node: str) -> ssl.SSLContext:
    key, csr = pki.make_key_and_csr(f"system:node:{node}", "system:nodes")
    (directory / node).write_bytes(pki.sign_client_csr(ca, csr, f"system:node:{node}", "system:nodes", 1) + key)
    context = ssl.create_default_context(cafile=str(directory / "ca"))
    context.load_cert_chain(directory / node)
    return context


class BrokerFiles:
    """The files of a broker that speaks TLS on loopback, and of a client with a certificate of the same CA."""

    def __init__(self, directory: Path, names: Sequence[str] = ("localhost", "127.0.0.1")) -> None:
        ca = pki.create_ca("test", 1)
        server = pki.issue_server_cert(ca, names, 1)
        key, csr = pki.make_key_and_csr("mapper", "test")
        self.authority = _written(directory / "ca.crt", ca.cert_pem)
        self.certificate = _written(directory / "broker.crt", server.cert_pem)
        self.key = _written(directory / "broker.key", server.key_pem)
        self.client_certificate = _written(directory / "client.crt", pki.sign_client_csr(ca, csr, "mapper", "test", 1))
        self.client_key = _written(directory / "client.key", key)

    def mosquitto(self, *more: str) -> tuple[str, ...]:
        """Lines of mosquitto.conf."""
        return (f"cafile {self.authority}", f"certfile {self.certificate}", f"keyfile {self.key}", *more)

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
