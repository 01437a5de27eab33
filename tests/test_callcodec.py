"""Requests of nodes and their answers, as they travel."""

import msgpack
import pytest

from link.codec import decode, encode
from link.errors import RemoteProtocolError
from link.frames import CHUNK_BYTES, MAX_TARGET_BYTES, MAX_WARNINGS, Answer, AnswerHead, Call, CallHead

HEAD = CallHead("PUT", "/api/v1/pods?x=%C3%A4", "u", "application/json", "a", "r1", "kubectl/v1.33")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([15, 1, ["GET", "/x", "", "", "", "", ""], b"", False], "target must be at most"),
        ([15, 1, ["GET", b"\xff", "", "", "", "", ""], b"", False], "target is no UTF-8"),
        ([15, 1, 7, b"", False], "head must be an array"),
        ([16, 1, [42, "", 0, [], ""], b"", True], "status must be an integer from 100"),
        ([16, 1, [200, "", 0, [7], ""], b"", True], "warnings must be at most"),
    ],
)
def test_what_is_wrong_is_said(value: object, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        decode(msgpack.packb(value))


def test_limits_of_calls() -> None:
    with pytest.raises(RemoteProtocolError, match="body must be at most"):
        decode(encode(Call(1, None, b"x" * (CHUNK_BYTES + 1), True)))
    with pytest.raises(RemoteProtocolError, match="target must be at most"):
        decode(encode(Call(1, HEAD._replace(target="x" * (MAX_TARGET_BYTES + 1)), b"", True)))
    many = AnswerHead(200, warnings=("w" * 9999,) * (MAX_WARNINGS + 1), retry_after_s=1e9)
    told = decode(encode(Answer(1, many, b"", True)))
    assert isinstance(told, Answer), "what is too long for an answer is cut short: nobody can be asked to say it again"
    assert told.head is not None
    assert len(told.head.warnings) == MAX_WARNINGS
