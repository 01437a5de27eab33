"""A hub and nodes that speak QUIC on loopback: certificates of one CA, and what each end shows."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from componentbase import pki
from componentbase.doorway import Limits
from link.pump import Pump, Transport
from link.quic import Credentials, LiveCredentials
from link.quicserver import Listener, listen
from link.transports import AT_DOOR

RESET_KEY = bytes(range(32))
NAMES = ("127.0.0.1", "localhost")


class Certificates:
    """A CA, a hub's certificate and nodes'."""

    def __init__(self, names: tuple[str, ...] = NAMES, ca: pki.KeyPair | None = None) -> None:
        self.ca = ca or pki.create_ca("test", 1)
        self.server = pki.issue_server_cert(self.ca, names, 1)
        self.hub = LiveCredentials()
        self.hub.replace(self.server.cert_pem + self.server.key_pem, self.ca.cert_pem.decode())

    def shown_by(self, node: str = "n", ca: pki.KeyPair | None = None, days: float = 1) -> bytes:
        """A node's certificate with its key."""
        name = f"system:node:{node}"
        key, csr = pki.make_key_and_csr(name, "system:nodes")
        return pki.sign_client_csr(ca or self.ca, csr, name, "system:nodes", days) + key

    def node(self, shown: bytes | None = None, trusted: bytes | None = None) -> Credentials:
        """What a node dials with."""
        return Credentials.read(shown or self.shown_by(), trusted or self.ca.cert_pem, is_client=True)

    def files(self, directory: Path, node: str) -> tuple[Path, Path, Path]:
        """CA, certificate and key of a node, as it keeps them."""
        shown = self.shown_by(node)
        at = shown.index(b"-----BEGIN PRIVATE KEY")
        paths = (directory / "ca.crt", directory / f"{node}.crt", directory / f"{node}.key")
        for path, content in zip(paths, (self.ca.cert_pem, shown[:at], shown[at:]), strict=True):
            path.write_bytes(content)
        return paths


@asynccontextmanager
async def quic_hub(
    opened: Callable[[Transport], Pump],
    certificates: Certificates,
    *,
    at_door: Limits = AT_DOOR,
    shown: bytes = b"",
    trusted: bytes = b"",
    port: int = 0,
) -> AsyncIterator[Listener]:
    """A listener, closed at the end. shown, trusted: PEM, of others than `certificates`."""
    live = certificates.hub
    if shown or trusted:
        live = LiveCredentials()
        own = certificates.server.cert_pem + certificates.server.key_pem
        live.replace(shown or own, (trusted or certificates.ca.cert_pem).decode())
    listener = await listen("127.0.0.1", port, live, opened, reset_key=RESET_KEY, at_door=at_door)
    try:
        yield listener
    finally:
        await listener.close()
