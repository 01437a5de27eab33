"""Tests for cloudhub.tally: a request counts when it is made, a write when it was taken."""

from collections.abc import Mapping

import pytest

from apimachinery.errors import Conflict
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import JSON
from apimachinery.resources import EVENTS, NODES
from cloudhub.tally import CountedClient, Tally

NODE = ObjectKey(NODES, "", "edge-1")


class Server:
    """Takes everything until it is told not to."""

    conflicting = False

    async def get(self, key: ObjectKey) -> dict[str, JSON]:
        return {"name": key.name}

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> dict[str, JSON]:
        return dict(value)

    async def patch(
        self, key: ObjectKey, body: Mapping[str, JSON], patch_type: str = "merge", subresource: str = ""
    ) -> dict[str, JSON]:
        if self.conflicting:
            raise Conflict("read again")
        return {"type": patch_type, "subresource": subresource}


async def test_requests_and_writes() -> None:
    tally, server = Tally(), Server()
    client = CountedClient(server, tally)
    assert await client.get(NODE) == {"name": "edge-1"}
    assert (tally.requests, tally.writes) == (1, 0)
    assert await client.create(EVENTS, "default", {"a": 1}) == {"a": 1}
    assert await client.patch(NODE, {}, subresource="status") == {"type": "merge", "subresource": "status"}
    assert (tally.requests, tally.writes) == (3, 2)
    server.conflicting = True
    with pytest.raises(Conflict):
        await client.patch(NODE, {})
    assert (tally.requests, tally.writes) == (4, 2)
