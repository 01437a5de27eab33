"""One node's calls at the hub."""

import pytest

from cloudhub.nodecalls import NodeCalls, Turn
from link.errors import RemoteProtocolError
from link.exchange import Chunk, Whole
from link.frames import CHUNK_BYTES, MAX_CALLS, AnswerHead, Call, CallHead

HEAD = CallHead("GET", "/version")
OK, BUSY = AnswerHead(200), AnswerHead(429)


def test_a_call_goes_from_its_first_chunk_to_the_last_of_its_answer() -> None:
    calls = NodeCalls()
    assert calls.take(Call(1, HEAD, b"a", False), has_room=True) is Turn.MORE
    assert calls.size == 1
    assert calls.take(Call(1, None, b"b", True), has_room=True) == Whole(1, HEAD, b"ab")
    assert calls.size == 0
    calls.answer(1, OK, b"x" * (CHUNK_BYTES + 1))
    assert calls.size == CHUNK_BYTES + 1
    assert calls.next() == Chunk(1, OK, b"x" * CHUNK_BYTES, False)
    with pytest.raises(RemoteProtocolError, match="begins twice"):
        calls.take(Call(1, HEAD, b"", True), has_room=True)
    rest: Chunk[AnswerHead] = Chunk(1, None, b"x", True)
    assert calls.next() == rest
    assert calls.next() is None
    assert calls.size == 0
    calls.answer(1, OK, b"again")
    assert calls.next() is None, "it was answered"


def test_what_there_is_no_room_for_is_refused_and_its_rest_passed_over() -> None:
    calls = NodeCalls()
    assert calls.take(Call(1, HEAD, b"a", False), has_room=True) is Turn.MORE
    assert calls.take(Call(1, None, b"b", False), has_room=False) is Turn.REFUSED
    assert calls.size == 0
    calls.answer(1, BUSY, b"")
    assert calls.next() == Chunk(1, BUSY, b"", True)
    assert calls.take(Call(1, None, b"c", True), has_room=True) is Turn.MORE


def test_who_cancels_makes_room_for_another() -> None:
    calls = NodeCalls()
    for number in range(MAX_CALLS):
        assert calls.take(Call(number, HEAD, b"", True), has_room=True) == Whole(number, HEAD, b"")
    with pytest.raises(RemoteProtocolError, match="more than 8 calls"):
        calls.take(Call(99, HEAD, b"", True), has_room=True)
    calls.answer(0, OK, b"answer")
    assert calls.cancel(0)
    assert not calls.cancel(0)
    assert calls.next() is None
    assert calls.take(Call(99, HEAD, b"", True), has_room=True) == Whole(99, HEAD, b"")


def test_a_number_that_was_used_is_not_used_again() -> None:
    calls = NodeCalls()
    calls.take(Call(2, HEAD, b"", True), has_room=True)
    calls.cancel(2)
    for number in (1, 2):
        with pytest.raises(RemoteProtocolError, match=f"call {number} begins after call 2"):
            calls.take(Call(number, HEAD, b"", True), has_room=True)
