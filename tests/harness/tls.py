"""Certificates for tests: one CA, a hub, nodes."""

import ssl
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
