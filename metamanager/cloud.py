"""
What the local API asks of the link to the cloud, and how what goes wrong there is told to a client.

The link is edgehub's; what is needed of it is said here, and joined in edgecore. A call is one request to the cluster's
apiserver, made by the hub on behalf of whoever asks, and its answer is the apiserver's own.

Versions. Clients of the local API see its own revisions as resourceVersions. An object that comes in an answer and
that the store does not hold has none; it keeps the cluster's version, marked, so that a write can give it back.
"""

from collections.abc import Sequence
from typing import Protocol

from apimachinery.errors import Timeout, TooManyRequests, Unavailable
from apimachinery.objects import JSON
from link.errors import CallLost, LinkClosed
from link.frames import CALL_S, AnswerHead, CallHead, Interest

MARK = 1 << 62
"""Added to the cluster's versions: etcd's revisions are int64s and never come near, nor do the store's own."""

JSON_TYPE = "application/json"


class Answered(Protocol):
    """The apiserver's answer to a call."""

    @property
    def head(self) -> AnswerHead: ...

    @property
    def body(self) -> bytes: ...


class Cloud(Protocol):
    """The link, as the local API needs it."""

    def is_connected(self) -> bool:
        """Whether a hub is there now. One that went away unheard counts as there for some seconds."""

    def want(self, interests: Sequence[Interest]) -> None:
        """Have these selections held, too; what was wanted before and is not among them is taken away."""

    async def call(self, head: CallHead, body: bytes = b"", timeout_s: float = CALL_S) -> Answered:
        """
        One request to the apiserver.

        Raises LinkClosed, TimeoutError or TooManyRequests where nothing was done, CallLost where it may have been.
        """


class Away(Unavailable):
    """The cloud cannot be asked: nothing was done."""


class Lost(Timeout):
    """The cloud was asked, and no answer came: it may have been done."""


async def ask(cloud: Cloud, head: CallHead, body: bytes = b"", timeout_s: float = CALL_S) -> Answered:
    """The answer, whatever its status. Raises Away, Lost or another ApiError."""
    try:
        return await cloud.call(head, body, timeout_s)
    except LinkClosed as exc:
        raise Away(f"this node is not connected to the cloud ({exc}), which {head.method} {_path(head)} needs") from exc
    except CallLost as exc:
        raise Lost(
            f"the link to the cloud was lost before it answered ({exc}): the request may have been done"
        ) from exc
    except TimeoutError as exc:
        raise TooManyRequests(
            f"the link to the cloud is too slow or too busy for {head.method} {_path(head)}: nothing was done",
            retry_after_s=1,
        ) from exc


def _path(head: CallHead) -> str:
    return head.target.partition("?")[0]


def mark_versions(value: JSON) -> JSON:
    """An object, a list or a Table of objects, with the cluster's versions marked. It is changed and returned."""
    if isinstance(value, dict):
        below = value.get("rows" if value.get("kind") == "Table" else "items")
        found = below if isinstance(below, list) else ()  # of a custom kind's object it may be anything
        rows = (each.get("object") for each in found if isinstance(each, dict) and value.get("kind") == "Table")
        for each in (value, *found, *rows):
            metadata = each.get("metadata") if isinstance(each, dict) else None
            if isinstance(metadata, dict) and str(metadata.get("resourceVersion", "")).isdecimal():
                metadata["resourceVersion"] = str(MARK + int(metadata["resourceVersion"]))
    return value
