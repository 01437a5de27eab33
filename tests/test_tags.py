"""A message is known by its first two bytes."""

from link.codec import encode, encode_push
from link.frames import Answer, Cancel, Goodbye, GoodbyeCode, Granted, Lane, Ping, Report, Traffic, Welcome
from link.tags import Tag, lane_of

WELCOME, PING = encode(Welcome("e", 0, False, 20.0)), encode(Ping(7))
PUSH, GRANTED = encode_push(1, (), True), encode(Granted(1, ()))
REPORT, ANSWER, CANCEL = encode(Report(1, ())), encode(Answer(1, None, b"x", False)), encode(Cancel(1))


def test_each_frame_has_its_lane_by_its_tag_alone() -> None:
    assert [lane_of(message) for message in (WELCOME, PING, encode(Goodbye(GoodbyeCode.RESYNC, "", 0)))] == [
        Lane.CONTROL
    ] * 3
    assert [lane_of(message) for message in (PUSH, GRANTED)] == [Lane.PUSH] * 2
    assert lane_of(REPORT) is Lane.REPORT
    assert [lane_of(message) for message in (ANSWER, CANCEL)] == [Lane.BULK] * 2
    assert [lane_of(rubbish) for rubbish in (b"", b"x", b"rubbish", bytes(9))] == [Lane.CONTROL] * 4
    assert lane_of(encode(Report(1, (), Traffic.DEVICES))) is Lane.DEVICE


def test_the_second_byte_of_a_message_is_its_tag() -> None:
    assert (WELCOME[1], PING[1], PUSH[1], CANCEL[1]) == (Tag.WELCOME, Tag.PING, Tag.PUSH, Tag.CANCEL)


def test_no_number_is_given_twice() -> None:
    assert len(Tag.__members__) == len(Tag)
