"""The sending half of a numbered stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import RemoteProtocolError
from link.sender import Sender


def test_numbers_are_dense_and_acks_cumulative() -> None:
    sender = Sender(seq=5)
    assert [sender.send(10) for _ in range(3)] == [6, 7, 8]
    assert sender.acknowledge(7) == 2
    assert sender.acknowledge(7) == 0
    assert (sender.acked, sender.sent, sender.bytes_under_way) == (7, 8, 10)


@pytest.mark.parametrize("seq", [4, 9])
def test_an_ack_of_what_is_not_under_way_is_refused(seq: int) -> None:
    sender = Sender(seq=5)
    sender.send(1)
    with pytest.raises(RemoteProtocolError, match="ack of"):
        sender.acknowledge(seq)
    assert sender.acked == 5


def test_the_window_is_bounded_by_frames_and_by_bytes() -> None:
    sender = Sender(window_frames=2, window_bytes=100)
    assert sender.room() == 100
    sender.send(30)
    assert sender.room() == 70
    sender.send(30)
    assert sender.room() == 0, "two frames fill it"
    sender.acknowledge(2)
    sender.send(500)
    assert sender.room() == 0, "so does one large frame, which may go when nothing else does"


@given(st.lists(st.integers(1, 50), max_size=30), st.data())
def test_bytes_under_way_are_those_not_acknowledged(sizes: list[int], data: st.DataObject) -> None:
    sender = Sender()
    for size in sizes:
        sender.send(size)
    acked = data.draw(st.integers(0, len(sizes)))
    sender.acknowledge(acked)
    assert sender.bytes_under_way == sum(sizes[acked:])
