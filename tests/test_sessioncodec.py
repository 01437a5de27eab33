"""What a connection begins and ends with, and what a node is interested in, as they travel."""

import msgpack
import pytest

from apimachinery.resources import PODS
from link.codec import decode, encode
from link.errors import RemoteProtocolError
from link.fields import MAX_TEXT_BYTES
from link.frames import (
    MAX_HORIZON,
    MAX_INTERESTS,
    Goodbye,
    GoodbyeCode,
    Granted,
    Hello,
    Interest,
    Position,
    RefusedInterest,
    Wanted,
)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([1, 1, "", None, b"", ""], "node must be a string"),
        ([1, 1, "n" * 300, None, b"", ""], "node must be a string"),
        ([1, 1, "n", [], b"", ""], "epoch is missing"),
        ([1, 1, "n", None, b"", "", 0, []], "term must be an integer from 1"),
        ([2, "e", 1, True, "soon"], "heartbeat_s must be a number"),
        ([2, "e", 1, 1, 1.0], "inventory must be a boolean"),
        ([3, [], [[0, "n", "a", "u", "r"]], True], "there is no resource 0"),
        ([11, "nonsense", "", 0], "nonsense"),
        ([13, 1, [], [[0, "", "", ""]]], "there is no resource 0"),
        (
            [14, 1, [["", "v1", "pods", "Pod", True]], [[0, "", "", "", 200, ""]], []],
            "code must be an integer from 400",
        ),
    ],
)
def test_what_is_wrong_is_said(value: object, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        decode(msgpack.packb(value))


def test_a_horizon_of_more_entries_than_a_frame_may_have_is_refused() -> None:
    most = (Position("pods", 1),) * MAX_HORIZON
    assert decode(encode(Hello(1, "n", None, b"", "", 1, most)))
    with pytest.raises(RemoteProtocolError, match="horizon"):
        decode(encode(Hello(1, "n", None, b"", "", 1, (*most, most[0]))))


def test_limits_of_interests() -> None:
    most = (Interest(PODS, "n" * 253, "x" * 253, "u" * 600),) * MAX_INTERESTS
    assert decode(encode(Wanted(1, most)))
    refused = tuple(RefusedInterest(interest, 403, "\N{COLLISION SYMBOL}" * MAX_TEXT_BYTES) for interest in most)
    assert decode(encode(Granted(1, refused, (PODS,) * MAX_INTERESTS)))
    for frame in (
        Wanted(1, (*most, most[0])),
        Hello(1, "n", None, b"", "", 1, (), (*most, most[0])),
        Granted(1, (*refused, refused[0]), ()),
    ):
        with pytest.raises(RemoteProtocolError, match="more than 256 interests"):
            decode(encode(frame))


def test_a_goodbyes_reason_is_cut_to_what_the_other_side_takes() -> None:
    told = decode(encode(Goodbye(GoodbyeCode.STALE, "\N{COLLISION SYMBOL}" * MAX_TEXT_BYTES, 0.0)))
    assert isinstance(told, Goodbye)
    assert len(told.reason) == MAX_TEXT_BYTES // 4
