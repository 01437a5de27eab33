"""Changes of objects and what is answered to them, as they travel."""

import msgpack
import pytest
from hypothesis import given

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.resources import CONFIG_MAPS
from link.codec import decode, encode
from link.errors import RemoteProtocolError
from link.fields import MAX_BODY_BYTES
from link.frames import CHUNK_BYTES, MAX_TRANSFER_BYTES, Ack, Delta, Part, Push
from link.pushcodec import MAX_UNPACKED_BYTES, decode_delta, encode_delta
from tests.harness.framestrategies import DELTAS

KEY = ObjectKey(CONFIG_MAPS, "default", "a")
VERSION = ObjectVersion("u", "r1")


@given(DELTAS)
def test_a_delta_by_itself_survives(delta: Delta) -> None:
    assert decode_delta(encode_delta(delta)) == delta


def test_a_delta_with_an_array_in_it_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="not a delta: arrays are nested deeper than 1"):
        decode_delta(msgpack.packb(["", "v1", "pods", "Pod", True, "", ["a"], 0]))
    with pytest.raises(RemoteProtocolError, match="more than 16 elements"):
        decode_delta(msgpack.packb([0] * 17))


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ([5], "seq is missing"),
        ([5, -1], "seq must be an integer"),
        ([5, 2**63], "seq must be an integer"),
        ([5, 1, 1], "1 elements too many"),
        ([4, 1, True, ["x"]], "a delta must be bytes"),
        ([4, 1, True, [b"\xc1"]], "not a delta"),
        ([4, 1, True, [msgpack.packb(["", "v1", "pods", "Pod", True, "", "a", 9])]], "unknown delta encoding 9"),
        (
            [4, 1, True, [msgpack.packb(["", "v1", "pods", "Pod", True, "", "a", 3, "u", "r", 0, b""])]],
            "size must be an integer from 1 to 3145728",
        ),
        (
            [4, 1, True, [msgpack.packb(["", "v1", "pods", "Pod", True, "", "a", 2, "u", "r", "b", 2**30, b""])]],
            "size must be an integer from 1 to 3145728",
        ),
    ],
)
def test_what_is_wrong_is_said(value: object, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        decode(msgpack.packb(value))


def test_limits_of_pushes() -> None:
    with pytest.raises(RemoteProtocolError, match="body must be at most"):
        decode(encode(Push(1, (Delta(KEY, VERSION, b"x" * (MAX_BODY_BYTES + 1)),), False)))
    half = MAX_UNPACKED_BYTES // 2
    assert decode(encode(Push(1, (Delta(KEY, VERSION, b"", size=half),) * 2, False)))
    with pytest.raises(RemoteProtocolError, match=f"bodies of {MAX_UNPACKED_BYTES + 1} bytes are over"):
        decode(encode(Push(1, (Delta(KEY, VERSION, b"", size=half), Delta(KEY, VERSION, b"", "r0", half + 1)), False)))


def test_limits_of_parts() -> None:
    with pytest.raises(RemoteProtocolError, match="body must be at most"):
        decode(encode(Part(1, 1, b"x" * (CHUNK_BYTES + 1))))
    with pytest.raises(RemoteProtocolError, match="size must be an integer"):
        decode(encode(Part(1, MAX_TRANSFER_BYTES + 1, b"x")))


@pytest.mark.parametrize("seq", [0, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1])
def test_an_ack_of_any_length_of_number_survives(seq: int) -> None:
    assert decode(encode(Ack(seq))) == Ack(seq)
