"""
What a check asks of a client: the verbs of Kubernetes, in whatever way that client's users say them.

Each module of tests.conformance.clients says these verbs with one unmodified client. A check is written once, against
Client, and judges only what comes back: plain JSON values, or Refused. What a client does not offer is named in
tests.conformance.matrix and not asked of it.
"""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple, Protocol

Body = dict[str, Any]
"""An object as its JSON."""


class Kind(NamedTuple):
    """A kind in one version."""

    api_version: str
    kind: str
    plural: str

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def argument(self) -> str:
        """As kubectl takes it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        prefix = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        return "/".join([prefix, "namespaces", namespace, self.plural, *([name] if name else [])])

    def body(self, name: str, **rest: Any) -> Body:
        """A new object; metadata besides the name are given as `metadata`."""
        metadata = {"name": name, **rest.pop("metadata", {})}
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **rest}


WIDGET = Kind("example.com/v1", "Widget", "widgets")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")


PATCHES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
"""The kinds of patches, and how a request says which one it is."""
PARTIAL = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1,application/json"


class Refused(Exception):
    """The server said no, as the client's user is told of it."""

    def __init__(self, reason: str, message: str) -> None:
        """reason: the Status's, as `Conflict`. message: its words, or what holds them."""
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message

    @classmethod
    def of(cls, text: str | bytes | None, otherwise: str = "") -> "Refused":
        """From an answer's body, which is to be a Status."""
        try:
            status = json.loads(text or "")
        except ValueError:
            return cls("not a Status", f"{text!r} {otherwise}")
        return cls(str(status.get("reason")), str(status.get("message")))


class Listed(NamedTuple):
    """An answer to a list, or a page of it."""

    items: list[Body]
    version: str
    """Its resourceVersion; "" from a client that keeps it to itself."""


class Event(NamedTuple):
    """Of a watch."""

    type: str
    object: Body

    @property
    def version(self) -> str:
        return str(self.object["metadata"]["resourceVersion"])

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])


class Client:
    """One client in one namespace, with what it offers. Every method raises Refused for an answer that is an error."""

    async def get(self, kind: Kind, name: str) -> Body:
        raise NotImplementedError

    async def listing(self, kind: Kind, *, labels: str = "", fields: str = "", everywhere: bool = False) -> Listed:
        raise NotImplementedError

    async def pages(self, kind: Kind, size: int) -> list[Listed]:
        """All of a kind by limit and continue. A client that hides them gives one page and sees to it by itself."""
        raise NotImplementedError

    def watch(
        self, kind: Kind, version: str = "", *, timeout_s: int = 0, bookmarks: bool = False, initial: bool = False
    ) -> AsyncIterator[Event]:
        """
        Events until the caller has enough, or, with timeout_s, until the server ends it.

        version: to go on from; without one the state comes first. initial: sendInitialEvents.
        """
        raise NotImplementedError

    async def create(self, kind: Kind, body: Body, *, dry_run: bool = False) -> Body:
        raise NotImplementedError

    async def create_strictly(self, kind: Kind, body: Body) -> Body:
        """With fieldValidation=Strict."""
        raise NotImplementedError

    async def replace(self, kind: Kind, body: Body) -> Body:
        raise NotImplementedError

    async def patch(self, kind: Kind, name: str, patch: Any, how: str = "merge", *, status: bool = False) -> Body:
        """how: json, merge or strategic."""
        raise NotImplementedError

    async def apply(self, kind: Kind, body: Body, manager: str, *, force: bool = False) -> Body:
        """Server-side."""
        raise NotImplementedError

    async def delete(self, kind: Kind, name: str, *, preconditions: Mapping[str, str] | None = None) -> None:
        raise NotImplementedError

    async def delete_all(self, kind: Kind, labels: str) -> None:
        raise NotImplementedError

    async def wait(self, kind: Kind, name: str, condition: str) -> None:
        """Until a condition of its status is True."""
        raise NotImplementedError

    async def table(self, kind: Kind) -> tuple[list[str], list[list[str]]]:
        """Column names and rows, as the server makes them."""
        raise NotImplementedError

    async def metadata(self, kind: Kind) -> "list[Body]":
        """As PartialObjectMetadata."""
        raise NotImplementedError

    async def raw(self, path: str) -> Any:
        """A JSON document."""
        raise NotImplementedError

    async def kinds(self) -> set[str]:
        """What discovery names, each as `plural.group`, or `plural`."""
        raise NotImplementedError

    async def version(self) -> str:
        """The server's gitVersion."""
        raise NotImplementedError

    async def can_i(self, verb: str, kind: Kind) -> bool:
        raise NotImplementedError

    async def token(self, account: str) -> str:
        raise NotImplementedError

    async def lead(self, lease: str) -> list[str]:
        """Be elected by a Lease and stay the leader for a while; returns the renewTimes seen meanwhile."""
        raise NotImplementedError

    async def informed(self, kind: Kind) -> "Informed":
        raise NotImplementedError

    async def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """The output of a command; kubectl only."""
        raise NotImplementedError

    def lines(self, *arguments: str) -> AsyncIterator[str]:
        """The output of a command that does not end by itself, line by line; kubectl only."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give back what it holds."""


class Informed(Protocol):
    """An informer that runs."""

    def names(self) -> set[str]:
        """What its cache holds."""

    def seen(self) -> list[tuple[str, str]]:
        """(event type, name) of what its handlers were told, in order."""

    def stop(self) -> None: ...
