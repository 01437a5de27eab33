"""
One node's calls at the hub, from the first chunk of the request to the last of the answer.

Invariants
    at most MAX_CALLS are under way: begun, and neither answered to the last chunk nor cancelled
    an answer to what is not under way goes nowhere, and no number is used twice: what was cancelled may still go on

Pure state: no clock, no I/O. cloudhub.session has them.
"""

import enum

from link.errors import RemoteProtocolError
from link.exchange import Chunk, Incoming, Outgoing, Whole
from link.frames import MAX_CALLS, AnswerHead, Call, CallHead


class Turn(enum.Enum):
    """What becomes of a chunk that completes nothing."""

    MORE = "more"
    """Nothing yet: the rest is to come, or was given up."""
    REFUSED = "refused"
    """There was no room for it. The node waits for an answer that says so."""


class NodeCalls:
    """Lives as long as its connection."""

    def __init__(self) -> None:
        self._asked: Incoming[CallHead] = Incoming()
        self._answers: Outgoing[AnswerHead] = Outgoing()
        self._under_way: set[int] = set()
        self._begun = -1
        """The number of the last one that began."""

    @property
    def size(self) -> int:
        """Bytes of bodies that are kept here."""
        return self._asked.size + self._answers.size

    def take(self, call: Call, *, has_room: bool) -> Whole[CallHead] | Turn:
        """
        Take a chunk in; returns the call that it completes.

        Raises RemoteProtocolError where a node begins a call twice, or one too many, or out of order.
        """
        if call.head is not None:
            if call.number in self._under_way:
                raise RemoteProtocolError(f"call {call.number} begins twice")
            if call.number <= self._begun:
                raise RemoteProtocolError(f"call {call.number} begins after call {self._begun}")
            if len(self._under_way) >= MAX_CALLS:
                raise RemoteProtocolError(f"more than {MAX_CALLS} calls are under way")
            self._begun = call.number
            self._under_way.add(call.number)
        elif call.number not in self._under_way:
            return Turn.MORE  # it was refused or cancelled, and this was on its way
        if not has_room:
            self._asked.drop(call.number)
            return Turn.REFUSED
        whole = self._asked.take(*call)
        return Turn.MORE if whole is None else whole

    def cancel(self, number: int) -> bool:
        """Nobody waits for this one any more; returns whether it was under way."""
        was_under_way = number in self._under_way
        self._under_way.discard(number)
        self._asked.drop(number)
        self._answers.drop(number)
        return was_under_way

    def answer(self, number: int, head: AnswerHead, body: bytes) -> None:
        """To be sent, as next() gives it out."""
        if number in self._under_way:
            self._answers.put(number, head, body)

    def next(self) -> Chunk[AnswerHead] | None:
        """The next chunk of an answer, which counts as sent; None when nothing is left."""
        chunk = self._answers.next()
        if chunk is not None and chunk.last:
            self._under_way.discard(chunk.number)
        return chunk
