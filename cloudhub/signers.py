"""
Who signs the certificates of nodes: the installation's own CA, at once, or the cluster, when it gets round to it.

Whoever asks has been checked before: the token or the former certificate, the name, the request's form. A signer takes
no decision about that, and hands out nothing: what it gives is written down first (cloudhub.join, cloudhub.renewal).

The other one is cloudhub.clustersigner.
"""

from typing import NamedTuple, Protocol

from apimachinery.errors import Forbidden, InternalError, Invalid
from apimachinery.keys import Node
from apiserver.http import Response, json_response
from cloudhub.authority import Authority


class SigningDenied(Forbidden):
    """Somebody has decided that this request gets no certificate."""


class SigningFailed(Invalid):
    """It was approved, and the signer would not."""


class SignerNotTrusted(InternalError):
    """What the signer gives is of no use here; an operator has to change the configuration."""


RENEWAL = "renewal"


class Wanted(NamedTuple):
    """A certificate that somebody may have."""

    node: Node
    csr: bytes
    """PEM, checked: it asks for this node's certificate and nothing else."""
    key: str
    """See pki.key_id."""
    vouched: str
    """What speaks for it: "token ID", or RENEWAL."""
    peer: str = ""


class Issued(NamedTuple):
    """A certificate, PEM."""

    certificate: bytes
    vouched: str = ""
    """What it was asked for with, where the signer knows that a hub wrote it."""


class Waiting(NamedTuple):
    """There is none yet."""

    text: str
    """What it waits for and what to do, a sentence for the person at the edge."""
    vouched: str = ""
    again_s: int = 2
    """After how long it is to be asked again."""


class NodeSigner(Protocol):
    """Raises ApiError: SigningDenied, SigningFailed, SignerNotTrusted, CaLapsed, and as the apiserver answers."""

    @property
    def notice(self) -> str:
        """What whoever is about to ask should know, a sentence; "" for nothing."""

    async def found(self, wanted: Wanted) -> Issued | Waiting | None:
        """What there is without anybody being asked; None where nobody was asked yet."""

    async def is_open(self, node: Node, key: str, age_s: float) -> bool:
        """Whether another key of this node has to wait, where this one asked for so long."""

    async def ask(self, wanted: Wanted) -> Issued | Waiting:
        """Have it signed. Asked again for the same node and key, it goes on with what was begun."""


class OwnSigner:
    """The installation's own CA."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    @property
    def notice(self) -> str:
        return ""

    async def found(self, wanted: Wanted) -> Issued:
        # Signing leaves no trace, and what cannot be signed is refused before a token is used up.
        return Issued(self._authority.sign_node(wanted.csr, wanted.node))

    async def is_open(self, node: Node, key: str, age_s: float) -> bool:
        return False

    async def ask(self, wanted: Wanted) -> Issued:
        return await self.found(wanted)


def come_again(node: Node, waiting: Waiting) -> Response:
    """202: it was understood, and is not done."""
    return json_response(202, {"node": node, "message": waiting.text}, [("retry-after", str(waiting.again_s))])
