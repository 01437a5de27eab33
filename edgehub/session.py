"""
The edge's side of one link: what came down and must be committed, what may go up.

It decides nothing about disks or waiting. The shell takes batches, commits them and says so, and only
then is an Ack sent; it offers reports and is told which rows the cloud has.

Invariants
    an Ack is sent for what committed() was told, never for more
    batches leave take_batches() in the order of their numbers, each once
    report rows are settled in the order of their row numbers

Pure state but for the pump it speaks through. The shell is edgehub/connector.py.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from apimachinery.keys import Node
from link.errors import LinkError, RemoteProtocolError
from link.frames import (
    PROTOCOL,
    Ack,
    Batch,
    Check,
    Cursor,
    Frame,
    Held,
    Hello,
    Inventory,
    Nack,
    Position,
    Push,
    Refusal,
    RefusedReport,
    ReportAck,
    ReportEntry,
    Welcome,
)
from link.peer import Peer, Role
from link.pump import Clock, Pump, Transport

logger = logging.getLogger(__name__)

COMMIT_BYTES = 1 << 20  # of bodies, unpacked: what one transaction holds in memory, but for one larger push
INVENTORY_CHUNK = 1000  # entries per frame: about 60 KB, a few packets' worth of progress at a time


class EdgeSession:
    """One connection to a hub, from dialling to loss: opened(), greet(), then the rest. Is a link.pump.Handler."""

    def __init__(self, node: Node, *, agent: str, clock: Clock, wake: Callable[[], None]) -> None:
        """wake: called whenever something below may have changed."""
        self.error: LinkError | None = None
        """Why the link is gone; None while it is there."""
        self.is_welcome = False
        self.wants_inventory = False
        self.is_synced = False
        """Whether everything the hub had was committed, as far as committed() was told."""
        self.settled_row = 0
        """Reports up to this row are with the cloud."""
        self.refused_reports: list[RefusedReport] = []
        self._node = node
        self._agent = agent
        self._clock = clock
        self._wake = wake
        self._pump: Pump | None = None
        self._epoch = ""
        self._pushes: deque[Push] = deque()
        self._rows: deque[tuple[int, int]] = deque()
        """(number of the Report, last row in it) for Reports under way."""

    def opened(self, transport: Transport) -> Pump:
        """The connection is there; greet() is next."""
        self._pump = Pump(Peer(Role.EDGE, self._clock.time()), transport, self, self._clock)
        return self._pump

    def greet(self, cursor: Cursor | None, digest: bytes, term: int, horizon: tuple[Position, ...] = ()) -> None:
        """
        Say Hello, if there is still anybody to say it to.

        cursor, digest, horizon: of what is committed, and nothing may commit from here on but what this session brings.
        term: higher than that of any connection before.
        """
        if self.error is None:
            self.pump.send(Hello(PROTOCOL, self._node, cursor, digest, self._agent, term, horizon))

    @property
    def pump(self) -> Pump:
        assert self._pump is not None, "opened() comes first"
        return self._pump

    # From the pump

    def frame_received(self, frame: Frame) -> None:
        match frame:
            case Welcome(epoch, _, inventory, _):
                self._epoch = epoch
                self.is_welcome = True
                self.wants_inventory = inventory
            case Push():
                self._pushes.append(frame)
            case ReportAck(seq, refused):
                while self._rows and self._rows[0][0] <= seq:
                    self.settled_row = self._rows.popleft()[1]
                self.refused_reports += refused
            case _:
                raise RemoteProtocolError(f"a hub does not say {type(frame).__name__}")
        self._wake()

    def link_lost(self, error: LinkError) -> None:
        self.error = error
        self._wake()

    # Down

    def send_inventory(self, held: Sequence[Held]) -> None:
        """Answer a Welcome that asked for it: everything the store holds."""
        self.wants_inventory = False
        chunks = _chunks(held, INVENTORY_CHUNK) or [()]
        for place, chunk in enumerate(chunks):
            if self.error is None:
                self.pump.send(Inventory(tuple(chunk), last=place == len(chunks) - 1))

    def take_batches(self) -> list[Batch]:
        """
        What has come and is not yet taken, oldest first; to be committed in one transaction or several.

        Not more than about COMMIT_BYTES at a time, for what is packed may be a small part of what it unpacks to.
        """
        batches: list[Batch] = []
        room = COMMIT_BYTES
        while self._pushes and room > 0:
            push = self._pushes.popleft()
            batches.append(Batch(Cursor(self._epoch, push.seq), push.deltas, push.synced, push.horizon))
            room -= sum(delta.whole_size for delta in push.deltas)
        if self._pushes:
            self._wake()
        return batches

    def committed(self, batches: Sequence[Batch], refusals: Mapping[int, Sequence[Refusal]]) -> None:
        """These batches are durable, but for the objects refused in them (by number): tell the hub."""
        self.is_synced = batches[-1].synced
        if self.error is not None:
            return
        for seq, refused in refusals.items():
            if refused:
                self.pump.send(Nack(seq, tuple(refused)))
        self.pump.send(Ack(batches[-1].cursor.seq))

    def check(self, cursor: Cursor, digest: bytes) -> None:
        """Ask whether this is what the hub thinks we hold; nothing comes back where it is."""
        if self.error is None and self.is_synced and not self._pushes and cursor.epoch == self._epoch:
            self.pump.send(Check(cursor.seq, digest))

    # Up

    def report_room(self) -> int:
        """Bytes that may be reported now."""
        return 0 if self.error is not None or self._pump is None else self._pump.peer.report_room()

    def report(self, rows: Sequence[tuple[int, ReportEntry]]) -> None:
        """Send rows of the durable outbox, in the order of their row numbers."""
        seq = self.pump.report(tuple(entry for _, entry in rows))
        self._rows.append((seq, rows[-1][0]))


def _chunks(items: Iterable[Held], size: int) -> list[tuple[Held, ...]]:
    rest = iter(items)
    return list(iter(lambda: tuple(islice(rest, size)), ()))
