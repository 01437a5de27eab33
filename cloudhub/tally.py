"""
What the writer of statuses has done since it started, in numbers and in the last refusals, for whoever operates a hub.

Requests are counted where they are made, so that "nothing was written" is a fact and no opinion of the code above.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.objects import JSON

REFUSALS_KEPT = 32  # a screen of them


class Client(Protocol):
    """The requests that are counted; cloudhub.apiclient.ApiClient has them."""

    async def get(self, key: ObjectKey) -> dict[str, JSON]: ...

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> dict[str, JSON]: ...

    async def patch(
        self, key: ObjectKey, body: Mapping[str, JSON], patch_type: str = "merge", subresource: str = ""
    ) -> dict[str, JSON]: ...


class RefusedWrite(NamedTuple):
    """A report that was parked."""

    node: Node
    key: ObjectKey
    field: str
    reason: str


class Tally:
    """The numbers. They only rise."""

    def __init__(self) -> None:
        self.requests = 0
        """All that were made, whatever the answer."""
        self.writes = 0
        """Those that changed something: creations and patches that were taken."""
        self.writes_skipped = 0
        """Turns at which everything was found as it should be, and nothing was asked of the apiserver."""
        self.conflicts = 0
        self.retries = 0
        """Turns that have to be taken again, conflicts included."""
        self.refusals: deque[RefusedWrite] = deque(maxlen=REFUSALS_KEPT)


class CountedClient:
    """A client whose requests are counted."""

    def __init__(self, client: Client, tally: Tally) -> None:
        self._client = client
        self._tally = tally

    async def get(self, key: ObjectKey) -> dict[str, JSON]:
        self._tally.requests += 1
        return await self._client.get(key)

    async def create(self, resource: Resource, namespace: str, value: Mapping[str, JSON]) -> dict[str, JSON]:
        self._tally.requests += 1
        made = await self._client.create(resource, namespace, value)
        self._tally.writes += 1
        return made

    async def patch(
        self, key: ObjectKey, body: Mapping[str, JSON], patch_type: str = "merge", subresource: str = ""
    ) -> dict[str, JSON]:
        self._tally.requests += 1
        answer = await self._client.patch(key, body, patch_type, subresource)
        self._tally.writes += 1
        return answer
