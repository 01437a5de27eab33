"""The receiving half of a numbered stream."""

import pytest

from link.errors import LocalProtocolError, RemoteProtocolError
from link.frames import PUSHES, Allowance
from link.receiver import Receiver

USUAL = PUSHES[0]
HUNDRED = Allowance(64, 100)


def test_a_gap_or_a_repetition_is_refused_and_changes_nothing() -> None:
    receiver = Receiver(3, USUAL)
    receiver.receive(4, 1)
    for wrong in (4, 6, 0):
        with pytest.raises(RemoteProtocolError, match="expected number 5"):
            receiver.receive(wrong, 1)
    receiver.receive(5, 1)
    assert receiver.received == 5


def test_nothing_is_acknowledged_before_it_came() -> None:
    receiver = Receiver(0, USUAL)
    receiver.receive(1, 1)
    with pytest.raises(LocalProtocolError):
        receiver.acknowledge(2)
    receiver.acknowledge(1)
    with pytest.raises(LocalProtocolError):
        receiver.acknowledge(0)


def test_a_sender_that_ignores_the_window_is_refused() -> None:
    receiver = Receiver(0, Allowance(2, 100))
    receiver.receive(1, 1000)  # one large frame may always come
    with pytest.raises(RemoteProtocolError, match="overruns"):
        receiver.receive(2, 1)
    receiver.acknowledge(1)
    receiver.receive(2, 1)
    receiver.receive(3, 1)
    with pytest.raises(RemoteProtocolError, match="overruns"):
        receiver.receive(4, 1)


def test_the_last_frame_may_be_larger_than_the_room_that_is_left() -> None:
    receiver = Receiver(0, HUNDRED)
    receiver.receive(1, 99)
    receiver.receive(2, 10_000)
    with pytest.raises(RemoteProtocolError, match="overruns"):
        receiver.receive(3, 1)
    receiver.acknowledge(2)
    receiver.receive(3, 1)


def test_what_fills_the_window_is_the_last() -> None:
    receiver = Receiver(0, HUNDRED._replace(growth=4))
    receiver.receive(1, 400)
    with pytest.raises(RemoteProtocolError, match="overruns"):
        receiver.receive(2, 1)


def test_of_each_class_the_last_frame_may_be_larger() -> None:
    receiver = Receiver(0, HUNDRED, HUNDRED)
    receiver.receive(1, 99)
    receiver.receive(2, 10_000)
    receiver.receive(3, 99)
    receiver.receive(4, 10_000)
    with pytest.raises(RemoteProtocolError, match="overruns"):
        receiver.receive(5, 1)
