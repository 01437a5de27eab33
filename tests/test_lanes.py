"""Messages on several streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.codec import encode, encode_push
from link.errors import RemoteProtocolError
from link.fields import MAX_FRAME_BYTES
from link.frames import Answer, Cancel, Granted, Lane, Ping, Pong, Report, Welcome
from link.lanes import LANES, LENGTH_BYTES, MAX_WAITING, OPENER, Inbox, framed
from link.tags import lane_of

WELCOME, PING, PONG = encode(Welcome("e", 0, False, 20.0)), encode(Ping(7)), encode(Pong(3))
PUSH, GRANTED = encode_push(1, (), True), encode(Granted(1, ()))
REPORT, ANSWER, CANCEL = encode(Report(1, ())), encode(Answer(1, None, b"x", False)), encode(Cancel(1))


def handed_on(inbox: Inbox, is_streaming: bool = True) -> list[bytes]:
    return list(iter(lambda: inbox.next(is_streaming), None))


def test_control_comes_first_then_the_more_urgent() -> None:
    inbox = Inbox()
    for message in (ANSWER, REPORT, PUSH, PING, PONG):
        inbox.feed(lane_of(message), framed(message))
    assert handed_on(inbox) == [PING, PONG, PUSH, REPORT, ANSWER]
    assert inbox.waiting_bytes == 0


def test_nothing_overtakes_the_handshake() -> None:
    inbox = Inbox()
    inbox.feed(Lane.PUSH, framed(PUSH))
    assert handed_on(inbox, is_streaming=False) == []
    inbox.feed(Lane.CONTROL, framed(WELCOME))
    assert handed_on(inbox, is_streaming=False) == [WELCOME]
    assert handed_on(inbox) == [PUSH]


def test_a_length_over_the_limit_is_refused_before_anything_of_it_has_come() -> None:
    with pytest.raises(RemoteProtocolError, match="over 4194304"):
        Inbox().feed(Lane.CONTROL, (MAX_FRAME_BYTES + 1).to_bytes(4))
    Inbox().feed(Lane.CONTROL, MAX_FRAME_BYTES.to_bytes(4))


def test_a_frame_on_another_lane_than_its_own_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="a frame of lane PUSH came on BULK"):
        Inbox().feed(Lane.BULK, framed(PUSH))


def test_a_lane_is_open_once_something_came_on_each() -> None:
    inbox = Inbox()
    for lane in LANES:
        assert not inbox.is_open
        inbox.feed(lane, OPENER)
    assert inbox.is_open
    assert handed_on(inbox) == []


def test_what_waits_is_not_taken_nor_is_its_length() -> None:
    """The smallest messages before the Hello: their lengths, credited again, would let them come without end."""
    inbox = Inbox()
    inbox.feed(Lane.REPORT, framed(REPORT) * 100)
    assert inbox.taken_bytes == 0
    assert inbox.waiting_bytes == 100 * len(framed(REPORT))
    assert inbox.next(False) is None
    assert inbox.next(True) == REPORT
    assert inbox.taken_bytes == len(framed(REPORT))


def test_what_cannot_be_handed_on_before_the_handshake_is_not_taken_in_part_either() -> None:
    inbox = Inbox()
    inbox.feed(Lane.REPORT, MAX_FRAME_BYTES.to_bytes(LENGTH_BYTES) + bytes(1000))
    assert inbox.next(False) is None
    assert inbox.taken_bytes == 0
    inbox.feed(Lane.CONTROL, MAX_FRAME_BYTES.to_bytes(LENGTH_BYTES) + bytes(1000))
    assert inbox.taken_bytes == LENGTH_BYTES + 1000, "a Hello may be as long as it likes"
    assert inbox.next(True) is None
    assert inbox.taken_bytes == 2 * (LENGTH_BYTES + 1000)


def test_only_so_many_messages_wait() -> None:
    inbox = Inbox()
    inbox.feed(Lane.CONTROL, framed(PING) * (MAX_WAITING - 1))
    inbox.feed(Lane.REPORT, framed(REPORT))
    with pytest.raises(RemoteProtocolError, match="over 8192 frames wait"):
        inbox.feed(Lane.REPORT, framed(REPORT))
    assert inbox.next(False) == PING


@given(
    st.lists(st.sampled_from((WELCOME, PING, PUSH, GRANTED, REPORT, ANSWER, CANCEL)), max_size=30),
    st.lists(st.tuples(st.sampled_from(LANES), st.integers(1, 40)), max_size=60),
)
def test_whatever_the_pieces_and_their_order_each_lane_keeps_its_own(
    messages: list[bytes], pieces: list[tuple[Lane, int]]
) -> None:
    streams = {lane: b"".join(framed(each) for each in messages if lane_of(each) is lane) for lane in LANES}
    inbox, came = Inbox(), []
    for lane, size in [*pieces, *((lane, len(streams[lane])) for lane in LANES)]:
        piece, streams[lane] = streams[lane][:size], streams[lane][size:]
        if piece:
            inbox.feed(lane, piece)
            came += handed_on(inbox)
    for lane in LANES:
        assert [each for each in came if lane_of(each) is lane] == [each for each in messages if lane_of(each) is lane]
    assert inbox.taken_bytes == sum(len(framed(each)) for each in messages)
    assert inbox.waiting_bytes == 0
