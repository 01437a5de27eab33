"""The sending half of a numbered stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import RemoteProtocolError
from link.receiver import Receiver
from link.sender import Sender


def test_numbers_are_dense_and_acks_cumulative() -> None:
    sender = Sender(seq=5)
    assert [sender.send(10, 0.0) for _ in range(3)] == [6, 7, 8]
    assert sender.acknowledge(7, 0.0) == 2
    assert sender.acknowledge(7, 0.0) == 0
    assert (sender.acked, sender.sent, sender.bytes_under_way) == (7, 8, 10)


@pytest.mark.parametrize("seq", [4, 9])
def test_an_ack_of_what_is_not_under_way_is_refused(seq: int) -> None:
    sender = Sender(seq=5)
    sender.send(1, 0.0)
    with pytest.raises(RemoteProtocolError, match="ack of"):
        sender.acknowledge(seq, 0.0)
    assert sender.acked == 5


def test_the_window_is_bounded_by_frames_and_by_bytes() -> None:
    sender = Sender(window_frames=2, window_bytes=100)
    assert sender.room() == 100
    sender.send(30, 0.0)
    assert sender.room() == 70
    sender.send(30, 0.0)
    assert sender.room() == 0, "two frames fill it"
    sender.acknowledge(2, 0.0)
    sender.send(500, 0.0)
    assert sender.room() == 0, "so does one large frame, which may go when nothing else does"


@given(st.lists(st.integers(1, 50), max_size=30), st.data())
def test_bytes_under_way_are_those_not_acknowledged(sizes: list[int], data: st.DataObject) -> None:
    sender = Sender()
    for size in sizes:
        sender.send(size, 0.0)
    acked = data.draw(st.integers(0, len(sizes)))
    sender.acknowledge(acked, 0.0)
    assert sender.bytes_under_way == sum(sizes[acked:])


def full(sender: Sender, now: float) -> int:
    """Send what there is room for, in frames of 100; how much is under way then."""
    while sender.room() >= 100:
        sender.send(100, now)
    return sender.bytes_under_way


def test_a_window_that_passes_promptly_grows_up_to_its_bound() -> None:
    sender = Sender(window_bytes=1000, growth=4)
    grown = []
    for trip in range(5):
        grown.append(full(sender, 0.2 * trip))
        sender.acknowledge(sender.sent, 0.2 * (trip + 1))
    assert grown == [1000, 2000, 4000, 4000, 4000]


def test_a_window_grows_with_each_ack_of_a_part_of_it() -> None:
    sender = Sender(window_bytes=1000, growth=4)
    full(sender, 0.0)
    sender.acknowledge(3, 0.2)
    assert full(sender, 0.2) == 1300


def test_a_slow_ack_makes_the_window_small_again() -> None:
    sender = Sender(window_bytes=1000, growth=4)
    full(sender, 0.0)
    sender.acknowledge(sender.sent, 0.1)
    assert full(sender, 0.2) == 2000
    sender.acknowledge(sender.sent, 1.3)
    assert full(sender, 2.0) == 1000
    sender.acknowledge(sender.sent, 2.7)
    assert full(sender, 3.0) == 1000, "neither prompt nor slow: it stays"


def test_a_window_that_is_not_used_does_not_grow() -> None:
    sender = Sender(window_bytes=1000, growth=4)
    for trip in range(20):
        sender.send(400, 0.2 * trip)
        sender.acknowledge(sender.sent, 0.2 * trip + 0.1)
    assert sender.room() == 1000


def test_a_window_that_may_not_grow_does_not() -> None:
    sender = Sender(window_bytes=1000)
    full(sender, 0.0)
    sender.acknowledge(sender.sent, 0.1)
    assert full(sender, 0.1) == 1000


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 2), st.sampled_from([90, 5000])), max_size=60),
    st.sampled_from([(500, 1), (500, 4), (900, 2)]),
)
def test_what_a_sender_sends_no_receiver_refuses(steps: list[tuple[bool, float, int]], window: tuple[int, int]) -> None:
    bytes_, growth = window
    sender = Sender(window_bytes=bytes_, growth=growth)
    receiver = Receiver(window_bytes=bytes_, growth=growth)
    now = 0.0
    for sends, wait, size in steps:
        now += wait
        if sends:
            while sender.room() and sender.sent < sender.acked + 60:
                receiver.receive(sender.send(size, now), size)
        elif sender.sent > sender.acked:
            middle = (sender.acked + sender.sent + 1) // 2
            receiver.acknowledge(middle)
            sender.acknowledge(middle, now)
