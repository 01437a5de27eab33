"""
A CA, a hub and as many nodes as are wanted, in one directory: certificates as `edgecore join` gets them.

A node's files are made once and kept, so that families that follow each other share them.
"""

import ssl
from pathlib import Path

from apimachinery.keys import Node
from cloudhub.authority import NODES_ORGANIZATION, ServerIdentity
from cloudhub.identities import NODE_PREFIX
from componentbase import pki

DAYS = 2


def name_of(number: int) -> Node:
    """What a swarm's nodes are called."""
    return Node(f"hollow-{number}")


def make(directory: Path, nodes: int) -> Path:
    """Have so many nodes at least; returns the directory. About 0.3 ms each."""
    directory.mkdir(exist_ok=True)
    if not (directory / "ca.crt").exists():
        made = pki.create_ca("benchmark", DAYS)
        (directory / "ca.key").write_bytes(made.key_pem)
        (directory / "ca.crt").write_bytes(made.cert_pem)
    ca = _authority(directory)
    for name in map(name_of, range(nodes)):
        if not (directory / f"{name}.crt").exists():
            key, csr = pki.make_key_and_csr(NODE_PREFIX + name, NODES_ORGANIZATION)
            (directory / f"{name}.key").write_bytes(key)
            signed = pki.sign_client_csr(ca, csr, NODE_PREFIX + name, NODES_ORGANIZATION, DAYS)
            (directory / f"{name}.crt").write_bytes(signed)
    return directory


def hub_context(directory: Path) -> ssl.SSLContext:
    """The shipped one: TLS 1.3, and nobody without a certificate of this CA."""
    return ServerIdentity(_authority(directory), ["127.0.0.1"]).link_context


def _authority(directory: Path) -> pki.KeyPair:
    return pki.KeyPair((directory / "ca.crt").read_bytes(), (directory / "ca.key").read_bytes())
