"""
Calls and their answers cut into chunks and put together again, at either end.

The body of a call may be as large as an object, and it shares a line with what is urgent. So it goes in chunks, a chunk
of each message in turn, and a chunk is only handed out when the window has room (Peer.chunk_room): a push that
becomes due waits behind what is under way and no more.

Invariants
    what Incoming gives is what was put into the other side's Outgoing, whole, or never comes
    the chunks of one message keep their order; a message that is waited for is never behind all of another one
    Incoming holds at most `most` messages of MAX_CALL_BYTES each, whatever the other side sends

Pure state: no clock, no I/O.
"""

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

from link.errors import RemoteProtocolError
from link.frames import CHUNK_BYTES, MAX_CALL_BYTES, MAX_CALLS, AnswerHead, CallHead

Head = TypeVar("Head", CallHead, AnswerHead)


class Chunk(NamedTuple, Generic[Head]):
    """The fields of a Call or an Answer."""

    number: int
    head: Head | None
    """With the first chunk of a message only."""
    body: bytes
    last: bool


class Whole(NamedTuple, Generic[Head]):
    """A message that is complete."""

    number: int
    head: Head
    body: bytes


class _Waiting(NamedTuple, Generic[Head]):
    head: Head
    body: memoryview
    offset: int


class Outgoing(Generic[Head]):
    """What is still to be sent."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, _Waiting[Head]] = OrderedDict()

    def __len__(self) -> int:
        """Messages of which something is left."""
        return len(self._waiting)

    @property
    def size(self) -> int:
        """Bytes that messages of which something is left keep in memory."""
        return sum(len(waiting.body) for waiting in self._waiting.values())

    def put(self, number: int, head: Head, body: bytes) -> None:
        self._waiting[number] = _Waiting(head, memoryview(body), 0)

    def drop(self, number: int) -> bool:
        """Send nothing more of this message; returns whether anything was left."""
        return self._waiting.pop(number, None) is not None

    def next(self) -> Chunk[Head] | None:
        """The next chunk, which counts as sent; None when nothing is left."""
        if not self._waiting:
            return None
        number, waiting = self._waiting.popitem(last=False)
        end = waiting.offset + CHUNK_BYTES
        chunk = bytes(waiting.body[waiting.offset : end])
        last = end >= len(waiting.body)
        if not last:
            self._waiting[number] = waiting._replace(offset=end)
        return Chunk(number, waiting.head if waiting.offset == 0 else None, chunk, last)


class _Partial(Generic[Head]):
    def __init__(self, head: Head) -> None:
        self.head: Head = head
        self.body = bytearray()


class Incoming(Generic[Head]):
    """What has come in part."""

    def __init__(self, most: int = MAX_CALLS) -> None:
        """most: messages that may be incomplete at once."""
        self._partial: dict[int, _Partial[Head]] = {}
        self._most = most

    @property
    def size(self) -> int:
        """Bytes of what is incomplete."""
        return sum(len(partial.body) for partial in self._partial.values())

    def take(self, number: int, head: Head | None, body: bytes, last: bool) -> Whole[Head] | None:
        """
        Take a chunk in; returns the message that it completes.

        What goes on without having begun is passed over: it was dropped here. Raises RemoteProtocolError where the
        other side begins too many, one twice, or goes on for longer than a body may be.
        """
        if head is not None:
            if number in self._partial:
                raise RemoteProtocolError(f"message {number} begins twice")
            if len(self._partial) >= self._most:
                raise RemoteProtocolError(f"more than {self._most} messages are incomplete")
            self._partial[number] = _Partial[Head](head)
        partial = self._partial.get(number)
        if partial is None:
            return None
        if len(partial.body) + len(body) > MAX_CALL_BYTES:
            raise RemoteProtocolError(f"message {number} is over {MAX_CALL_BYTES} bytes")
        partial.body += body
        if not last:
            return None
        del self._partial[number]
        return Whole(number, partial.head, bytes(partial.body))

    def drop(self, number: int) -> None:
        """Forget what has come of this message, and pass over the rest."""
        self._partial.pop(number, None)
