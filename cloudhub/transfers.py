"""
One node's large changes on their way: which are sent in parts, which have come whole and can be pushed.

A change that is too large for a Push goes ahead of it in parts (link.transfers). What is sent was made of what the
node held then; when all of it has come, Outbox.may_land says whether it is still of use. An object that changed
meanwhile is pushed as it was when its transfer began, and what changed since follows as any other change: were it begun
anew each time, an object that changes often would never arrive.

Invariants
    at most MAX_TRANSFERS are begun and neither acknowledged nor dropped, of MAX_TRANSFERS_BYTES or a single one
    a transfer is pushed once all its parts are taken, or dropped; never both, and never twice

Pure state: no clock, no I/O. Lives as long as its connection. cloudhub.largeobjects has them.
"""

from collections import deque
from collections.abc import Callable

from apimachinery.keys import ObjectKey, ObjectVersion
from cloudhub.wires import Wire
from link.frames import MAX_TRANSFERS, MAX_TRANSFERS_BYTES, Part
from link.transfers import Departing


class Transfer:
    """One change."""

    __slots__ = ("_departing", "chunk", "held", "key", "seq", "version", "wire")

    def __init__(self, number: int, key: ObjectKey, version: ObjectVersion, held: ObjectVersion | None, wire: Wire):
        self.key = key
        self.version = version
        self.held = held
        """What the change was made of; None for the whole object."""
        self.wire = wire
        self.chunk = 0
        """The number of its last part among the connection's chunks; 0: not sent yet."""
        self.seq = 0
        """Of the Push that names it; 0: none yet."""
        self._departing = Departing(number, wire.data)

    @property
    def number(self) -> int:
        return self._departing.number

    @property
    def size(self) -> int:
        return self._departing.size

    @property
    def is_sent(self) -> bool:
        return self._departing.is_sent

    def next(self) -> Part:
        return self._departing.next()


class Transfers:
    """Those of one connection, in their order."""

    def __init__(self) -> None:
        self._all: deque[Transfer] = deque()
        self._dropped: deque[int] = deque()
        """Numbers of which the node is to be told that they are of no use."""
        self._begun = 0
        self.next_at = 0.0
        """When a further part may go out beside what is urgent; the clock is cloudhub.session's."""
        self.is_resting = False
        """Whether somebody goes on then."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def pending(self) -> list[Transfer]:
        """Those that no push names yet."""
        return [transfer for transfer in self._all if not transfer.seq]

    def is_pending(self, key: ObjectKey) -> bool:
        """Whether one of this object is begun, and no push names it yet."""
        return any(transfer.key == key and not transfer.seq for transfer in self._all)

    def has_room(self, size: int) -> bool:
        """Whether one more, of so many bytes, may begin. One is sent at a time: two would both come later."""
        if not self._all:
            return True
        if len(self._all) >= MAX_TRANSFERS or not self._all[-1].is_sent:
            return False
        return size + sum(transfer.size for transfer in self._all) <= MAX_TRANSFERS_BYTES

    def begin(self, key: ObjectKey, version: ObjectVersion, held: ObjectVersion | None, wire: Wire) -> None:
        self._begun += 1
        self._all.append(Transfer(self._begun, key, version, held, wire))

    def drop(self, transfer: Transfer) -> None:
        """It is of no use any more; next() tells the node where it has heard of it."""
        self._all.remove(transfer)
        self._dropped.append(transfer.number)

    def settle(self, seq: int) -> None:
        """Pushes up to this number are committed; that of one class may be, while an older one waits for its class."""
        if any(0 < transfer.seq <= seq for transfer in self._all):
            self._all = deque(transfer for transfer in self._all if not 0 < transfer.seq <= seq)

    @property
    def has_next(self) -> bool:
        return bool(self._dropped or (self._all and not self._all[-1].is_sent))

    def next(self) -> tuple[Part, Transfer | None]:
        """The next part to be sent, and of what. Ask has_next first."""
        if self._dropped:
            return Part(self._dropped.popleft(), 0, b""), None
        return self._all[-1].next(), self._all[-1]

    def whole(self, taken: int, has_room: Callable[[ObjectKey], bool] = lambda _: True) -> Transfer | None:
        """
        The first that has come whole and is not pushed.

        taken: the number of the last chunk that was. has_room: whether something of this object may be pushed now.
        """
        for transfer in self._all:
            if not transfer.seq and transfer.is_sent and transfer.chunk <= taken and has_room(transfer.key):
                return transfer
        return None
