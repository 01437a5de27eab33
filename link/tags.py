"""
The first element of a frame, by which a message is known before it is decoded: what it is, and which lane it takes.

A transport sorts messages by their lanes and hands on those that it knows nothing else of, so this needs no codec.

Invariants
    a number once given is never given to another frame
    a message of any bytes has a lane
"""

import enum

from link.frames import Lane


class Tag(enum.IntEnum):
    """The first element of a frame. Numbers are never used again for something else."""

    HELLO = 1
    WELCOME = 2
    INVENTORY = 3
    PUSH = 4
    ACK = 5
    NACK = 6
    REPORT = 7
    REPORT_ACK = 8
    PING = 9
    PONG = 10
    GOODBYE = 11
    CHECK = 12
    WANTED = 13
    GRANTED = 14
    CALL = 15
    ANSWER = 16
    TAKEN = 17
    CANCEL = 18
    PART = 19
    DEVICE_REPORT = 20


def lane_of(message: bytes) -> Lane:
    """Which lane a message takes, by its tag. What is no frame takes CONTROL, and is refused where it is decoded."""
    # Every frame is an array of less than sixteen, and every tag one byte.
    return _LANES.get(message[1], Lane.CONTROL) if len(message) > 1 else Lane.CONTROL


_LANES: dict[int, Lane] = {
    Tag.PUSH: Lane.PUSH,
    Tag.GRANTED: Lane.PUSH,
    Tag.REPORT: Lane.REPORT,
    Tag.DEVICE_REPORT: Lane.DEVICE,
    Tag.PART: Lane.BULK,
    Tag.CALL: Lane.BULK,
    Tag.ANSWER: Lane.BULK,
    Tag.CANCEL: Lane.BULK,
}
