"""The sending half of a numbered stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from link.errors import RemoteProtocolError
from link.frames import WINDOW_BYTES, WINDOW_FRAMES, Allowance
from link.receiver import Receiver
from link.sender import Sender

USUAL = Allowance(WINDOW_FRAMES, WINDOW_BYTES)
THOUSAND = Allowance(WINDOW_FRAMES, 1000)
GROWING = THOUSAND._replace(growth=4)


def test_numbers_are_dense_and_acks_cumulative() -> None:
    sender = Sender(5, USUAL)
    assert [sender.send(10, 0.0) for _ in range(3)] == [6, 7, 8]
    assert sender.acknowledge(7, 0.0) == 2
    assert sender.acknowledge(7, 0.0) == 0
    assert (sender.acked, sender.sent, sender.bytes_under_way) == (7, 8, 10)


@pytest.mark.parametrize("seq", [4, 9])
def test_an_ack_of_what_is_not_under_way_is_refused(seq: int) -> None:
    sender = Sender(5, USUAL)
    sender.send(1, 0.0)
    with pytest.raises(RemoteProtocolError, match="ack of"):
        sender.acknowledge(seq, 0.0)
    assert sender.acked == 5


def test_the_window_is_bounded_by_frames_and_by_bytes() -> None:
    sender = Sender(0, Allowance(frames=2, bytes=100))
    assert sender.room() == 100
    sender.send(30, 0.0)
    assert sender.room() == 70
    sender.send(30, 0.0)
    assert sender.room() == 0, "two frames fill it"
    sender.acknowledge(2, 0.0)
    sender.send(500, 0.0)
    assert sender.room() == 0, "so does one large frame, which may go when nothing else does"


def test_what_is_under_way_of_one_class_takes_no_room_from_the_other() -> None:
    sender = Sender(0, Allowance(2, 100), Allowance(1, 50))
    assert [sender.send(100, 0.0), sender.send(10, 0.0, 1)] == [1, 2], "they share their numbers"
    assert (sender.room(0), sender.room(1)) == (0, 0)
    sender.acknowledge(1, 0.0)
    assert (sender.room(0), sender.room(1)) == (100, 0)
    sender.send(40, 0.0)
    sender.acknowledge(3, 0.0)
    assert (sender.room(0), sender.room(1), sender.bytes_under_way) == (100, 50, 0)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1)), max_size=30), st.data())
def test_bytes_under_way_are_those_not_acknowledged(frames: list[tuple[int, int]], data: st.DataObject) -> None:
    sender = Sender(0, USUAL, USUAL)
    for size, place in frames:
        sender.send(size, 0.0, place)
    acked = data.draw(st.integers(0, len(frames)))
    sender.acknowledge(acked, 0.0)
    for place in (0, 1):
        left = sum(size for size, of in frames[acked:] if of == place)
        assert sender.room(place) == (WINDOW_BYTES - left)
    assert sender.bytes_under_way == sum(size for size, _ in frames[acked:])


def full(sender: Sender, now: float) -> int:
    """Send what there is room for, in frames of 100; how much is under way then."""
    while sender.room() >= 100:
        sender.send(100, now)
    return sender.bytes_under_way


def test_a_window_that_passes_promptly_grows_up_to_its_bound() -> None:
    sender = Sender(0, GROWING)
    grown = []
    for trip in range(5):
        grown.append(full(sender, 0.2 * trip))
        sender.acknowledge(sender.sent, 0.2 * (trip + 1))
    assert grown == [1000, 2000, 4000, 4000, 4000]


def test_a_long_line_is_not_a_slow_one() -> None:
    sender = Sender(0, GROWING)
    grown = []
    for trip in range(4):
        grown.append(full(sender, 3.0 * trip))
        sender.acknowledge(sender.sent, 3.0 * (trip + 1))
    assert grown == [1000, 2000, 4000, 4000]


def test_a_window_grows_with_each_ack_of_a_part_of_it() -> None:
    sender = Sender(0, GROWING)
    full(sender, 0.0)
    sender.acknowledge(3, 0.2)
    assert full(sender, 0.2) == 1300


def test_a_frame_that_waited_makes_the_window_small_again() -> None:
    sender = Sender(0, GROWING)
    full(sender, 0.0)
    sender.acknowledge(sender.sent, 0.1)
    assert full(sender, 0.2) == 2000
    sender.acknowledge(sender.sent, 1.3)
    assert full(sender, 2.0) == 1000
    sender.acknowledge(sender.sent, 2.7)
    assert full(sender, 3.0) == 1000, "neither prompt nor slow: it stays"


def test_a_window_that_is_not_used_does_not_grow() -> None:
    sender = Sender(0, GROWING)
    for trip in range(20):
        sender.send(400, 0.2 * trip)
        sender.acknowledge(sender.sent, 0.2 * trip + 0.1)
    assert sender.room() == 1000


def test_a_window_that_may_not_grow_does_not() -> None:
    sender = Sender(0, THOUSAND)
    full(sender, 0.0)
    sender.acknowledge(sender.sent, 0.1)
    assert full(sender, 0.1) == 1000


def line(sender: Sender, rate: int, rtt_s: float, places: tuple[int, ...], rounds: int) -> float:
    """
    Keep the windows at these places full over a line of `rate` bytes a second, in frames of 4 KiB. The longest that any
    frame took to get through, beyond the round trip.
    """
    now = busy_until = waited = 0.0
    under_way: list[tuple[float, int]] = []
    for _ in range(rounds):
        for place in places:
            while sender.room(place):
                busy_until = max(busy_until, now) + 4096 / rate
                under_way.append((busy_until + rtt_s, sender.send(4096, now, place)))
                waited = max(waited, busy_until - now)
        now, seq = under_way.pop(0)
        sender.acknowledge(seq, now)
    return waited


@given(st.integers(20_000, 5_000_000), st.floats(0.0, 0.6))
def test_what_waits_on_a_line_is_bounded_by_the_window_or_by_time(rate: int, rtt_s: float) -> None:
    """Whatever the line: its least window and prompt_s, or a round trip and twice prompt_s; in whole frames."""
    allowance = Allowance(64, 32 << 10, growth=8, prompt_s=0.25)
    waited = line(Sender(0, allowance), rate, rtt_s, (0,), 600)
    assert waited <= max((32 << 10) / rate + 0.25, rtt_s + 2 * 0.25) + 4 * 4096 / rate


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, None]), st.floats(0, 2), st.sampled_from([90, 5000])), max_size=60),
    st.sampled_from([(500, 1), (500, 4), (900, 2)]),
)
def test_what_a_sender_sends_no_receiver_refuses(
    steps: list[tuple[int | None, float, int]], window: tuple[int, int]
) -> None:
    bytes_, growth = window
    allowances = (Allowance(64, bytes_, growth), Allowance(8, 300, growth))
    sender, receiver = Sender(0, *allowances), Receiver(0, *allowances)
    now = 0.0
    for place, wait, size in steps:
        now += wait
        if place is not None:
            while sender.room(place) and sender.sent < sender.acked + 60:
                receiver.receive(sender.send(size, now, place), size)
        elif sender.sent > sender.acked:
            middle = (sender.acked + sender.sent + 1) // 2
            receiver.acknowledge(middle)
            sender.acknowledge(middle, now)
