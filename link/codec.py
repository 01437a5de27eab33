"""
Frames to bytes and back: one msgpack array per frame, its first element the frame's tag.

What is in a frame is written and read by its family (link.sessioncodec, link.pushcodec, link.reportcodec,
link.callcodec) with link.fields; here is what holds for all of them. The other side is not trusted: how large and how
nested a message is is looked at before anything is made of it, and whatever is wrong raises RemoteProtocolError and
nothing else.

Invariants
    decode(encode(frame)) == frame
    len(data) > MAX_FRAME_BYTES is refused before it is looked at
"""

from collections.abc import Sequence

from link import callcodec, nesting, pushcodec, reportcodec, sessioncodec
from link.errors import LocalProtocolError, RemoteProtocolError
from link.fields import MAX_ENTRIES, MAX_FRAME_BYTES, MAX_SEQ, SMALL_BYTES, Fields, pack, pack_small, unpack
from link.frames import Ack, Frame, Position, Push, Report
from link.tags import Tag

MAX_REPORT_BYTES = 1 << 20  # of a Report frame: a window is 64 KiB, and one value at worst 100 KiB as JSON writes it
MAX_ELEMENTS = 16 * MAX_ENTRIES  # of all arrays of a frame; as many entries and resources as may be have 12 for each
MAX_NESTING = 3  # a frame, a list in it, an entry of that


def encode(frame: Frame) -> bytes:
    """One frame as one message. Raises LocalProtocolError when it is larger than the other side would take."""
    return _packed(type(frame), _ENCODERS[type(frame)](frame))


def encode_push(seq: int, deltas: Sequence[bytes] | int, synced: bool, horizon: Sequence[Position] = ()) -> bytes:
    """encode() of a Push whose deltas are encoded already. deltas: or the number of the transfer that is its delta."""
    fields: list[object] = [Tag.PUSH, seq, synced, deltas, horizon]
    if type(deltas) is list and len(deltas) == 1 and len(deltas[0]) <= SMALL_BYTES:
        return pack_small(fields)
    return _packed(Push, fields)


def _packed(kind: type[Frame], fields: list[object]) -> bytes:
    data = pack(fields)
    most = MAX_REPORT_BYTES if kind is Report else MAX_FRAME_BYTES
    if len(data) > most:
        raise LocalProtocolError(f"a {kind.__name__} of {len(data)} bytes is over {most}")
    return data


def decode(data: bytes) -> Frame:
    """The frame in one message. Raises RemoteProtocolError."""
    if len(data) > MAX_FRAME_BYTES:
        raise RemoteProtocolError(f"a frame of {len(data)} bytes is over {MAX_FRAME_BYTES}")
    if data[:2] == _ACK_HEAD and (seq := _unsigned(data, 2)) is not None:
        return Ack(seq)  # most of what a hub hears; the general way takes six times as long
    nesting.check(data, "frame", deep=MAX_NESTING, elements=MAX_ELEMENTS)
    fields = Fields(unpack(data, "frame"), "frame")
    number = fields.integer("tag", 255)
    try:
        decoder = _DECODERS[number]
    except KeyError:
        raise RemoteProtocolError(f"unknown frame {number}") from None
    if number in (Tag.REPORT, Tag.DEVICE_REPORT) and len(data) > MAX_REPORT_BYTES:
        raise RemoteProtocolError(f"a Report of {len(data)} bytes is over {MAX_REPORT_BYTES}")
    frame = decoder(fields)
    fields.end()
    return frame


_ACK_HEAD = bytes((0x92, Tag.ACK))
"""An array of two, as every Ack begins."""
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
"""How many bytes follow the first one of msgpack's unsigned integers from 128 on."""


def _unsigned(data: bytes, at: int) -> int | None:
    """The integer from 0 to MAX_SEQ that is the rest of this; None where the rest is something else."""
    if len(data) == at + 1:
        return data[at] if data[at] < 0x80 else None
    if len(data) < at + 1 or len(data) != at + 1 + _UNSIGNED.get(data[at], 0):
        return None
    value = int.from_bytes(data[at + 1 :])
    return value if value <= MAX_SEQ else None


_CODECS = (*callcodec.CODECS, *pushcodec.CODECS, *reportcodec.CODECS, *sessioncodec.CODECS)
_ENCODERS = {codec.frame: codec.encode for codec in _CODECS}
_DECODERS = {int(codec.tag): codec.decode for codec in _CODECS}
