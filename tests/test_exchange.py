"""Calls cut into chunks and put together again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import RemoteProtocolError
from link.exchange import Chunk, Incoming, Outgoing, Whole
from link.frames import CHUNK_BYTES, MAX_CALL_BYTES, MAX_CALLS, CallHead

HEAD = CallHead("GET", "/version")


def drained(outgoing: Outgoing[CallHead]) -> list[Chunk[CallHead]]:
    chunks = []
    while (chunk := outgoing.next()) is not None:
        chunks.append(chunk)
    return chunks


@given(st.lists(st.integers(0, 3 * CHUNK_BYTES), max_size=MAX_CALLS))
def test_what_comes_out_is_what_was_put_in(sizes: list[int]) -> None:
    outgoing: Outgoing[CallHead] = Outgoing()
    bodies = {number: bytes([number]) * size for number, size in enumerate(sizes, 1)}
    for number, body in bodies.items():
        outgoing.put(number, HEAD._replace(base=str(number)), body)
    assert outgoing.size == sum(sizes)
    incoming: Incoming[CallHead] = Incoming()
    found = {}
    for chunk in drained(outgoing):
        assert len(chunk.body) <= CHUNK_BYTES
        if (whole := incoming.take(*chunk)) is not None:
            found[whole.number] = whole
    assert found == {n: Whole(n, HEAD._replace(base=str(n)), body) for n, body in bodies.items()}
    assert outgoing.size == incoming.size == len(outgoing) == 0


def test_a_small_message_does_not_wait_behind_all_of_a_large_one() -> None:
    outgoing: Outgoing[CallHead] = Outgoing()
    outgoing.put(1, HEAD, b"x" * MAX_CALL_BYTES)
    assert outgoing.next() is not None
    outgoing.put(2, HEAD, b"small")
    assert [chunk.number for chunk in (outgoing.next(), outgoing.next()) if chunk is not None] == [1, 2]


def test_a_message_that_was_dropped_sends_no_more_and_is_passed_over() -> None:
    outgoing: Outgoing[CallHead] = Outgoing()
    outgoing.put(1, HEAD, b"x" * (CHUNK_BYTES + 1))
    first = outgoing.next()
    assert first is not None
    incoming: Incoming[CallHead] = Incoming()
    assert incoming.take(*first) is None
    assert incoming.size == CHUNK_BYTES
    incoming.drop(1)
    assert incoming.size == 0
    assert incoming.take(1, None, b"y", True) is None, "its rest was on its way"
    assert outgoing.drop(1)
    assert not outgoing.drop(1)
    assert drained(outgoing) == []


def test_a_side_that_begins_too_much_is_refused() -> None:
    incoming: Incoming[CallHead] = Incoming()
    for number in range(MAX_CALLS):
        incoming.take(number, HEAD, b"", False)
    with pytest.raises(RemoteProtocolError, match="more than 8 messages"):
        incoming.take(99, HEAD, b"", False)
    with pytest.raises(RemoteProtocolError, match="begins twice"):
        incoming.take(1, HEAD, b"", False)


def test_a_body_without_end_is_refused_before_it_is_kept() -> None:
    incoming: Incoming[CallHead] = Incoming()
    incoming.take(1, HEAD, b"", False)
    for _ in range(MAX_CALL_BYTES // CHUNK_BYTES):
        incoming.take(1, None, b"x" * CHUNK_BYTES, False)
    with pytest.raises(RemoteProtocolError, match="is over"):
        incoming.take(1, None, b"x", True)
    assert incoming.size == MAX_CALL_BYTES
