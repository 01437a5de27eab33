"""
What the API library asks of a store, and of whoever carries writes out.

Two stores implement Storage: the embedded apiserver's and, through an adapter, the edge's. Revisions
are the store's own: one dense sequence over all kinds, which clients see as metadata.resourceVersion.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from apimachinery.events import Change
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import Object
from apimachinery.selectors import FieldSelector, LabelSelector
from apiserver.definitions import Catalogue
from apiserver.messages import Request
from apiserver.requests import ApiRequest


class Stored(NamedTuple):
    """An object and the revision at which it came into this state."""

    object: Object
    revision: int


class Page(NamedTuple):
    """Part of a list, all of it at one revision."""

    items: Sequence[Stored]
    """Ordered by namespace and name."""
    revision: int
    more: bool = False
    """Whether objects follow after the last item."""


class Storage(Protocol):
    """
    What a store must answer. Any of these may raise an ApiError, which the client then gets: Unavailable
    with retry_after_s while the store does not know yet what it should hold.
    """

    @property
    def revision(self) -> int:
        """The revision of the last change that readers can see."""

    def catalogue(self) -> Catalogue:
        """What is served now. Called for every request, so it is kept, not built."""

    async def get(self, key: ObjectKey) -> Stored | None:
        """None when there is no such object."""

    async def list(
        self,
        resource: Resource,
        namespace: str,
        labels: LabelSelector,
        fields: FieldSelector,
        limit: int,
        after: tuple[str, str] | None,
    ) -> Page:
        """
        The selected objects, at most `limit` of them (0: all), that follow the (namespace, name) `after`.

        namespace: "" for all of them. fields: checked, any of the definition's selectable fields may occur.
        """

    def since(self, revision: int, resource: Resource | None = None) -> Sequence[Change]:
        """
        All changes after `revision`, oldest first, without waiting.

        resource: those of other ones may be left out, and may be forgotten; None for all. The caller picks in any case.
        Raises Expired when some are forgotten or the revision was never reached.
        """

    async def wait(self, revision: int, resource: Resource | None = None) -> None:
        """
        Return once there is a change after `revision`, of this resource where one is given; it may return sooner.

        May be cancelled and called again at any time.
        """

    def render(self, item: Object, revision: int) -> bytes:
        """The object's JSON for a client: its body with metadata.resourceVersion saying `revision`."""


class Answer(NamedTuple):
    """What a write came to."""

    status: int
    body: bytes
    """JSON: the object as it is now, or a Status."""
    warnings: Sequence[str] = ()
    """Sentences for the person at the client (Warning headers)."""


class Writes(Protocol):
    """Who carries writes out: create, update, patch, delete, deletecollection, also on subresources."""

    async def write(self, request: ApiRequest, http: Request) -> Answer:
        """
        http: the body (`http.body`, at most the server's limit) and its media type (`http.headers`).

        Raises ApiError with what the client is to read.
        """
