"""A join endpoint as cloudcore has one, on loopback, with its CA and tokens in memory."""

import contextlib
import datetime
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from apiserver.http import serve
from cloudhub.authority import Authority, server_names
from cloudhub.join import MAX_BODY_BYTES, JoinEndpoint
from cloudhub.requests import Link
from cloudhub.roster import Roster
from cloudhub.tokens import DEFAULT_TTL, Grant, Tokens
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

    async def token(self, nodes: str = "", *, ttl: datetime.timedelta = DEFAULT_TTL, **grant: Any) -> str:
        """Its text; the further arguments are those of Grant."""
        made = await self.tokens.create(pin=self.authority.pin, now=self.now, ttl=ttl, grant=Grant(nodes, **grant))
        return made.text


@contextlib.asynccontextmanager
async def joinable_hub(names: Sequence[str] | None = None) -> AsyncIterator[JoinableHub]:
    """Listens until the block is left; `names` are those of its certificate."""
    objects = MemoryObjects()
    vault = Vault(objects)
    authority = await Authority.load(vault)
    hub = JoinableHub(authority, Tokens(vault), objects)
    endpoint = JoinEndpoint(
        authority,
        hub.tokens,
        Roster(objects),
        Link(LINK_PORT),
        now=lambda: hub.now,
        monotonic_s=lambda: hub.monotonic_s,
    )
    context = authority.server(names or server_names(["127.0.0.1"], [])).join_context
    async with serve(endpoint, host="127.0.0.1", port=0, ssl_context=context, max_body=MAX_BODY_BYTES) as server:
        hub.endpoint = Endpoint("127.0.0.1", server.port)
        yield hub
