"""
Changes of objects, the frames they travel in and what is answered to them, to arrays and back.

A delta is encoded by itself and carried as a byte string, so that a hub can encode one object once and
send it to any number of nodes.

Invariants
    decode_delta(encode_delta(delta)) == delta
    the bodies of a Push say together that they unpack to MAX_UNPACKED_BYTES at most
"""

from apimachinery.keys import ObjectKey
from link import nesting
from link.errors import RemoteProtocolError
from link.fields import (
    MAX_BODY_BYTES,
    MAX_SEQ,
    MAX_TEXT_BYTES,
    SMALL_BYTES,
    Codec,
    Fields,
    cut,
    pack,
    pack_small,
    read_with_table,
    unpack,
    write_with_table,
)
from link.frames import CHUNK_BYTES, MAX_TRANSFER_BYTES, Ack, Delta, Frame, Nack, Part, Push, Refusal
from link.tags import Tag

MAX_UNPACKED_BYTES = 4 << 20  # what the bodies of one Push may come to when unpacked: a node commits them together
MAX_DELTA_ELEMENTS = 16  # it has eleven, and no array in it

_REMOVED = 0
_WHOLE = 1
_PATCH = 2
_PACKED = 3
"""How a delta carries its object: not at all, whole, told against a version that the node holds, whole and packed."""


def encode_delta(delta: Delta) -> bytes:
    """One object's change by itself; the same bytes serve every node."""
    key = delta.key
    head: list[object] = [*key.resource, key.namespace, key.name]
    if delta.version is None:
        head.append(_REMOVED)
    elif delta.base:
        head += [_PATCH, *delta.version, delta.base, delta.size, delta.body]
    elif delta.size:
        head += [_PACKED, *delta.version, delta.size, delta.body]
    else:
        head += [_WHOLE, *delta.version, delta.body]
    return pack_small(head) if len(delta.body) <= SMALL_BYTES else pack(head)


def decode_delta(data: bytes | bytearray) -> Delta:
    """The inverse of encode_delta, of which nothing is kept. Raises RemoteProtocolError."""
    nesting.check(data, "delta", deep=1, elements=MAX_DELTA_ELEMENTS)
    fields = Fields(unpack(data, "delta"), "delta")
    key = fields.key()
    encoding = fields.integer("encoding", 255)
    if encoding == _REMOVED:
        delta = Delta(key, None, b"")
    elif encoding == _WHOLE:
        delta = Delta(key, fields.version(), fields.binary("body", MAX_BODY_BYTES))
    elif encoding == _PATCH:
        version, base, size = fields.version(), fields.text("base", empty=False), fields.size()
        delta = Delta(key, version, fields.binary("body", MAX_BODY_BYTES), base, size)
    elif encoding == _PACKED:
        version, size = fields.version(), fields.size()
        delta = Delta(key, version, fields.binary("body", MAX_BODY_BYTES), size=size)
    else:
        raise RemoteProtocolError(f"unknown delta encoding {encoding}")
    fields.end()
    return delta


def _encode_push(frame: Push) -> list[object]:
    deltas = frame.transfer or [encode_delta(delta) for delta in frame.deltas]
    return [Tag.PUSH, frame.seq, frame.synced, deltas, frame.horizon]


def _decode_push(fields: Fields) -> Frame:
    seq, synced = fields.integer("seq", MAX_SEQ), fields.boolean("synced")
    if fields.is_integer():
        transfer = fields.integer("transfer", MAX_SEQ, 1)
        return Push(seq, (), synced, fields.horizon(), transfer)
    deltas = []
    unpacked = 0
    for value in fields.array("deltas"):
        if type(value) is not bytes:
            raise RemoteProtocolError("push: a delta must be bytes")
        deltas.append(decode_delta(value))
        unpacked += deltas[-1].whole_size
    if unpacked > MAX_UNPACKED_BYTES:
        raise RemoteProtocolError(f"push: bodies of {unpacked} bytes are over {MAX_UNPACKED_BYTES}")
    return Push(seq, tuple(deltas), synced, fields.horizon())


def _encode_part(frame: Part) -> list[object]:
    return [Tag.PART, frame.number, frame.size, frame.body]


def _decode_part(fields: Fields) -> Frame:
    number, size = fields.integer("number", MAX_SEQ, 1), fields.integer("size", MAX_TRANSFER_BYTES)
    return Part(number, size, fields.binary("body", CHUNK_BYTES))


def _encode_ack(frame: Ack) -> list[object]:
    return [Tag.ACK, frame.seq]


def _decode_ack(fields: Fields) -> Frame:
    return Ack(fields.integer("seq", MAX_SEQ))


def _encode_nack(frame: Nack) -> list[object]:
    rows: list[tuple[ObjectKey, list[object]]] = [
        (refusal.key, [cut(refusal.reason), refusal.whole]) for refusal in frame.refusals
    ]
    return [Tag.NACK, frame.seq, *write_with_table(rows)]


def _decode_nack(fields: Fields) -> Frame:
    seq = fields.integer("seq", MAX_SEQ)

    def entry(inner: Fields, key: ObjectKey) -> Refusal:
        return Refusal(key, inner.text("reason", MAX_TEXT_BYTES), inner.boolean("whole"))

    return Nack(seq, read_with_table(fields, "refusals", entry))


CODECS = (
    Codec(Ack, Tag.ACK, _encode_ack, _decode_ack),
    Codec(Nack, Tag.NACK, _encode_nack, _decode_nack),
    Codec(Part, Tag.PART, _encode_part, _decode_part),
    Codec(Push, Tag.PUSH, _encode_push, _decode_push),
)
