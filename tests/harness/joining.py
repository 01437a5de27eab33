"""A join endpoint as cloudcore has one, on loopback, with its CA and tokens in memory."""

import contextlib
import datetime
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from apiserver.http import serve
from cloudhub import cas
from cloudhub.authority import Authority, Others, ServerIdentity, server_names
from cloudhub.join import MAX_BODY_BYTES, JoinEndpoint
from cloudhub.joincounts import JoinCounts
from cloudhub.requests import Link
from cloudhub.roster import Roster
from cloudhub.settings import NODE_S, WINDOW_S
from cloudhub.signers import NodeSigner
from cloudhub.tokens import DEFAULT_TTL, WAITING_REPEAT_S, Grant, Tokens
from cloudhub.vault import Vault
from componentbase.endpoints import Endpoint
from tests.harness.objects import MemoryObjects

LINK_PORT = 41234
NOWHERE = Endpoint("127.0.0.1", 0)


@dataclass
class JoinableHub:
    """What a test needs of it."""

    authority: Authority
    tokens: Tokens
    objects: MemoryObjects
    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))
    """The clock of tokens; a test may move it."""
    monotonic_s: float = 0.0
    endpoint: Endpoint = NOWHERE
    identity: ServerIdentity | None = None
    """What its server shows."""
    counts: JoinCounts = field(default_factory=JoinCounts)

    async def rotate(self, after: datetime.timedelta = datetime.timedelta(0)) -> None:
        """Have a second CA, which signs from then on."""
        await cas.begin(Vault(self.objects), self.now + after)
        await self.look()

    async def finish(self) -> None:
        """Drop the first one."""
        await cas.drop_first(Vault(self.objects), await cas.load(Vault(self.objects)))
        await self.look()

    async def look(self) -> None:
        """As a hub does now and then."""
        assert self.identity is not None, "it listens"
        await self.authority.reload(Vault(self.objects))
        self.identity.renew()

    async def token(self, nodes: str = "", *, ttl: datetime.timedelta = DEFAULT_TTL, **grant: Any) -> str:
        """Its text; the further arguments are those of Grant."""
        made = await self.tokens.create(pin=self.authority.pin, now=self.now, ttl=ttl, grant=Grant(nodes, **grant))
        return made.text


@contextlib.asynccontextmanager
async def joinable_hub(
    names: Sequence[str] | None = None,
    *,
    window_s: float = WINDOW_S,
    node_s: float = NODE_S,
    signer: NodeSigner | None = None,
    others: Others | None = None,
) -> AsyncIterator[JoinableHub]:
    """
    Listens until the block is left; `names` are those of its certificate, node_s the life of a node's.

    signer, others: of nodes and its CAs, where it is not the hub's own.
    """
    objects = MemoryObjects()
    vault = Vault(objects)
    authority = await Authority.load(vault, node_s, now=lambda: hub.now, others=others)
    tokens = Tokens(vault) if signer is None else Tokens(vault, WAITING_REPEAT_S)
    hub = JoinableHub(authority, tokens, objects)
    endpoint = JoinEndpoint(
        authority,
        hub.tokens,
        Roster(objects, requires_key=signer is not None),
        Link(LINK_PORT),
        signer=signer,
        window_s=window_s,
        now=lambda: hub.now,
        monotonic_s=lambda: hub.monotonic_s,
    )
    hub.counts = endpoint.counts
    hub.identity = authority.server(names or server_names(["127.0.0.1"], []))
    context = hub.identity.join_context
    async with serve(endpoint, host="127.0.0.1", port=0, ssl_context=context, max_body=MAX_BODY_BYTES) as server:
        hub.endpoint = Endpoint("127.0.0.1", server.port)
        yield hub
