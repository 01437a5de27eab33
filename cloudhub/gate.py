"""
Whom the hub lets in, of those that a certificate vouches for: nobody who is banned, and nobody whose name has gone to
another key.

Both are written in the roster's Secrets (cloudhub/roster.py), which every hub process watches anyway: a pod may refer
to any. So it costs no watch and no right more, and every process knows as soon as its watch tells; the hub lets
nobody in before it is in step. What is written is looked up when it is asked for, so nothing is kept but the few
bans.

Where the cluster signs nodes, its CA vouches for others, too, under the very same names: for kubelets, and for whoever
may approve. There only a key that is written in the roster opens the door (`requires_key`).

A watch may be behind. Of a ban that means that it takes effect as late; of a key, that a machine which has just
joined may be turned away once or twice, and it knows (edgehub/redial.py). What a watch missed while it was away, it
finds by a list; a connection is therefore held against what is written, not against how that came about.

Pure state: no clock, no I/O.
"""

import hashlib

from apimachinery.events import Change, EventType
from apimachinery.keys import Node, ObjectKey
from apimachinery.kubeevents import EventType as Severity
from apimachinery.kubeevents import KubeEvent, new_event
from apimachinery.objects import Object, lookup
from apimachinery.resources import NODES, SECRETS
from apimachinery.watchcache import WatchCache
from cloudhub.lobby import Denial
from cloudhub.roster import NAME_PREFIX, Ban, Identity, ban_in, identity_in, never_let_in, told
from cloudhub.vault import NAMESPACE
from link.frames import GoodbyeCode

BANNED = "NodeBanned"


class Gate:
    """The roster as one process sees it. observe() every change of Secrets."""

    def __init__(self, cache: WatchCache, *, requires_key: bool = False) -> None:
        self._cache = cache
        self._requires_key = requires_key
        self._bans: dict[Node, Ban] = {}
        self._told: dict[Node, Ban] = {}
        """Bans that an Event was made of here; as many as there are bans at most."""

    def observe(self, change: Change) -> Node | None:
        """The node of which something else may be written now; None for what is not the roster's."""
        key = change.object.key
        if key.resource != SECRETS or key.namespace != NAMESPACE or not key.name.startswith(NAME_PREFIX):
            return None
        node = Node(key.name.removeprefix(NAME_PREFIX))
        ban = None if change.type is EventType.DELETED else ban_in(_notes(change.object))
        if ban is None:
            self._bans.pop(node, None)
            self._told.pop(node, None)
        else:
            self._bans[node] = ban
        return node

    def refusal(self, node: Node, key: str, *, joined_with: str | None = None) -> Denial | None:
        """
        Why a connection of this node is not let in, or not any more.

        key: that of its certificate; "" where it is not known, and then not judged. joined_with: as joined_with() said
        it when the connection was last found to be good: a connection outlives renewals of its machine's certificate.
        """
        if (ban := self._bans.get(node)) is not None:
            return Denial(GoodbyeCode.BANNED, told(node, ban))
        identity = self._identity(node) if key else None
        if self._requires_key and (identity is None or not identity.key):
            return Denial(GoodbyeCode.REPLACED, never_let_in(node))
        # Who joined before keys were written down has none there, and a damaged note names nobody.
        if identity is None or not identity.key or key == identity.key:
            return None
        if key == identity.former and not identity.is_confirmed:
            return None  # the node may not have got the new one
        if joined_with is not None and joined_with == identity.joined_with:
            return None
        reason = f"this certificate of {node} counts no more: another machine has joined in its name, or renewed it"
        return Denial(GoodbyeCode.REPLACED, reason)

    def joined_with(self, node: Node) -> str | None:
        """The key that the machine joined with which has the name; None where nothing is written."""
        identity = self._identity(node)
        return None if identity is None or not identity.key else identity.joined_with

    def _identity(self, node: Node) -> Identity | None:
        item = self._cache.get(ObjectKey(SECRETS, NAMESPACE, NAME_PREFIX + node))
        return None if item is None else identity_in(_notes(item))

    def bans(self) -> list[tuple[Node, Ban]]:
        """All, in the order of their names."""
        return sorted(self._bans.items())

    def event(self, node: Node, at: str) -> KubeEvent | None:
        """What to say on the Node where a connection of it was refused as banned; once for each ban."""
        ban = self._bans.get(node)
        if ban is None or self._told.get(node) == ban:
            return None
        self._told[node] = ban
        unique = hashlib.sha256(f"{node} {BANNED}".encode()).hexdigest()[:16]
        message = f"{told(node, ban)}; its connections are refused"
        return new_event(ObjectKey(NODES, "", node), node, Severity.WARNING, BANNED, message, at=at, unique=unique)


def _notes(item: Object) -> dict[str, str]:
    return dict(lookup(item.parse(), "metadata.annotations") or {})
