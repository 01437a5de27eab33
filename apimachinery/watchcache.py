"""
The state of some resources and the recent history of how it came about.

One class serves three places: under the cloud hub's reflectors, in the embedded apiserver and behind
the edge's local API. Each has one writer, the owner of the cache; readers get Changes by revision.

The contract, in the manner of client-go's shared_informer.go
    For each object the sequence of states a consumer sees is a subsequence of the states the source
    had, in the source's order, and ends with the source's last. States may be skipped, none is made up
    and none comes back. Nothing is promised about order between objects beyond that of the revisions.
    A consumer that does list() and then since(the list's revision) misses nothing. One that falls
    behind the window gets Expired, and must list again; it is never waited for. Of one resource only
    its own changes count: it may change once a day, and the window be filled by others in a second.

Invariants
    revision is dense: every Change raises it by one
    list() at revision r, then the changes of since(r), equals list() now
    the window holds at most `window` changes, however many objects there are

Pure state: no clock, no I/O, no locks; one owner.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from apimachinery.errors import Expired
from apimachinery.events import Change, EventType, WatchEvent
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import Object
from apimachinery.selectors import EVERYTHING, LabelSelector

WINDOW_BYTES = 8 << 20  # 4,096 changes of 2 KB
WINDOW = 1024  # kube-apiserver's starts with 100 and grows with the rate; bodies are shared, so this is cheap


class ChangeWindow:
    """
    The last changes of something that has a dense revision; the oldest are forgotten.

    At most `window`, and with each shorten() no more than `window_bytes` of bodies.
    """

    def __init__(self, revision: int = 0, window: int = WINDOW, window_bytes: int = WINDOW_BYTES) -> None:
        """revision: that of the state the history starts from; changes up to it are not known."""
        if window < 1:
            raise ValueError("a window of at least one change is needed")
        self._window, self._window_bytes = window, window_bytes
        self._changes: deque[Change] = deque()
        self._bytes = 0
        self._start = self.revision = revision
        self._last: dict[Resource, int] = {}
        """The revision of the last change of each resource."""
        self._forgotten: dict[Resource, int] = {}
        """And of the last one that is forgotten."""

    def append(self, change: Change) -> None:
        if change.revision != self.revision + 1:
            raise ValueError(f"change {change.revision} does not follow {self.revision}")
        changes = self._changes
        changes.append(change)
        self._bytes += len(change.object.body)
        self._last[change.object.key.resource] = change.revision
        while len(changes) > self._window:
            self._forget()
        self.revision = change.revision

    def shorten(self) -> None:
        """
        Before changes that are committed together, however large they are: who keeps up loses none of them.

        Counted are the bodies that there are now; the previous one is mostly that of an earlier change.
        """
        while self._bytes > self._window_bytes:
            self._forget()

    def _forget(self) -> None:
        change = self._changes.popleft()
        self._bytes -= len(change.object.body)
        self._forgotten[change.object.key.resource] = change.revision

    def last(self, resource: Resource) -> int:
        """The revision of the last change of a resource; that of the start where there was none."""
        return self._last.get(resource, self._start)

    def since(self, revision: int, resource: Resource | None = None) -> list[Change]:
        """
        The changes after `revision`, oldest first; with a resource only its own.

        Raises Expired when some of them are forgotten, or when the revision has not been reached yet
        (a client that saw a later state than we have did not see it here).
        """
        missing = self.revision - revision
        if missing < 0:
            raise Expired(f"too large resource version: {revision}, current: {self.revision}")
        kept_from = self.revision - len(self._changes)
        if resource is not None:
            # What is forgotten of others is nothing to who asks for this one: it may change once a day.
            kept_from = self._forgotten.get(resource, self._start)
        if revision < kept_from:
            raise Expired(f"too old resource version: {revision} ({kept_from})")
        if resource is not None and self.last(resource) <= revision:
            return []
        # From the end: who keeps up asks for a few of thousands.
        newest = islice(reversed(self._changes), min(missing, len(self._changes)))
        found = [each for each in newest if resource is None or each.object.key.resource == resource]
        found.reverse()
        return found


class WatchCache:
    """Objects by resource, plus a window of how they changed."""

    def __init__(self, revision: int = 0, window: int = WINDOW) -> None:
        self._objects: dict[Resource, dict[ObjectKey, Object]] = {}
        self._history = ChangeWindow(revision, window)
        self._resume: dict[Resource, str] = {}

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    @property
    def revision(self) -> int:
        return self._history.revision

    def is_synced(self, resource: Resource) -> bool:
        """Whether a list of this resource has been taken in. Before that, "none" is not an answer."""
        return resource in self._resume

    def resume_version(self, resource: Resource) -> str:
        """The cluster's version from which to go on watching; "" when the resource must be listed first."""
        return self._resume.get(resource, "")

    def replace(self, resource: Resource, objects: Iterable[Object], resume_version: str) -> list[Change]:
        """Take a fresh list in. What it lacks is DELETED, what did not change says nothing."""
        held = self._objects.setdefault(resource, {})
        fresh = {item.key: item for item in objects}
        changes = [self._record(EventType.DELETED, held.pop(key), None) for key in list(held) if key not in fresh]
        for item in fresh.values():
            if (change := self._upsert(held, item)) is not None:
                changes.append(change)
        self._resume[resource] = resume_version
        return changes

    def apply(self, event: WatchEvent, resource: Resource | None = None) -> list[Change]:
        """
        Take one watch event in; returns the change it makes, or nothing where it tells what is known.

        resource: needed for a BOOKMARK only, which carries no object.
        """
        if event.object is None:
            if resource is not None and event.resume_version:
                self._resume[resource] = event.resume_version
            return []
        resource = event.object.key.resource
        self._resume[resource] = event.resume_version or self._resume.get(resource, "")
        held = self._objects.setdefault(resource, {})
        if event.type is EventType.DELETED:
            last = held.pop(event.object.key, None)
            return [] if last is None else [self._record(EventType.DELETED, event.object, last)]
        change = self._upsert(held, event.object)
        return [] if change is None else [change]

    def shorten(self) -> None:
        """Forget what is too much of the history. To be called before what is committed together; see ChangeWindow."""
        self._history.shorten()

    def get(self, key: ObjectKey) -> Object | None:
        held = self._objects.get(key.resource)
        return None if held is None else held.get(key)

    def resources(self) -> Iterator[Resource]:
        return iter(self._objects)

    def forget(self, resource: Resource) -> list[Change]:
        """Drop a resource altogether, as when its definition was deleted; says DELETED for each object."""
        held = self._objects.pop(resource, {})
        self._resume.pop(resource, None)
        return [self._record(EventType.DELETED, item, item) for item in held.values()]

    def last(self, resource: Resource) -> int:
        """The revision of the last change of a resource."""
        return self._history.last(resource)

    def since(self, revision: int, resource: Resource | None = None) -> list[Change]:
        """Changes after `revision`, as ChangeWindow has them; raises Expired when some are forgotten."""
        return self._history.since(revision, resource)

    def _upsert(self, held: dict[ObjectKey, Object], item: Object) -> Change | None:
        previous = held.get(item.key)
        if previous is not None and previous.version == item.version:
            return None
        held[item.key] = item
        return self._record(EventType.ADDED if previous is None else EventType.MODIFIED, item, previous)

    def _record(self, kind: EventType, item: Object, previous: Object | None) -> Change:
        change = Change(self.revision + 1, kind, item, previous)
        self._history.append(change)
        return change

    # Last in the class: after it the name `list` means this method.
    def list(
        self, resource: Resource, namespace: str = "", selector: LabelSelector = EVERYTHING
    ) -> tuple[list[Object], int]:
        """Objects in the order of their keys, and the revision they are of."""
        held = self._objects.get(resource, {})
        found = [
            item
            for key, item in held.items()
            if (not namespace or key.namespace == namespace) and selector.matches(item.labels)
        ]
        found.sort(key=lambda item: item.key[1:])
        return found, self.revision
