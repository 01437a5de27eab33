"""
MQTT 3.1.1 packets, and their codec without I/O: bytes in, immutable tuples out, and back.

Invariants
    whatever arrives, a Decoder answers with packets or with one ProtocolError; what it answers does not depend on how
    the bytes were cut into pieces
    no length that a peer sends sizes an allocation before it was compared with the limit
    a packet that was decoded is well-formed: its topics and filters are valid, its packet id is not 0

Packets are NamedTuples: a third of a frozen dataclass's cost per packet, and nothing is generated at import. Two of
different types can compare equal (they are tuples); whoever compares, compares the types as well.

MQTT 3.1's CONNECT ("MQIsdp", level 3) is taken too; the rest of 3.1 is read by 3.1.1's rules. That refuses one thing
old clients may do: resending a SUBSCRIBE with the DUP bit.

Errors
    ProtocolError               drop the peer
    ├── MalformedPacket         it broke the format
    ├── PacketTooLarge          it exceeds max_packet_bytes
    ├── UnsupportedVersion      answer CONNACK 1 first, if .answerable
    └── ProtocolViolation       well-formed, but not allowed now (raised by the core)

After "MQTT Version 3.1.1", OASIS Standard, 29 October 2014, chapters 2 and 3.
"""

import enum
import struct
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from devicetwin.broker.topics import InvalidTopic, check_filter, check_text, check_topic

MAX_REMAINING_LENGTH = 268_435_455  # what four length bytes can say, section 2.2.3


class ProtocolError(Exception):
    """The peer broke the protocol; drop the connection."""


class MalformedPacket(ProtocolError):
    """Bytes that are no MQTT packet."""


class PacketTooLarge(ProtocolError):
    """A packet announces more bytes than the limit. Known from its first bytes, before any of its body is kept."""

    def __init__(self, announced: int, limit: int) -> None:
        super().__init__(f"packet of {announced} bytes exceeds the limit of {limit}")
        self.announced = announced
        self.limit = limit


class UnsupportedVersion(ProtocolError):
    """A CONNECT of another protocol or level."""

    def __init__(self, name: str, level: int) -> None:
        super().__init__(f"protocol {name!r} level {level} is not MQTT 3.1.1")
        self.answerable = name in _LEVELS
        """Whether the peer speaks some MQTT and so understands a CONNACK."""


class ProtocolViolation(ProtocolError):
    """A well-formed packet that its sender may not send now."""


class ConnectCode(enum.IntEnum):
    """The return codes of CONNACK, table 3.1."""

    ACCEPTED = 0
    UNACCEPTABLE_VERSION = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_CREDENTIALS = 4
    NOT_AUTHORIZED = 5


SUBSCRIBE_FAILED = 0x80  # SUBACK's return code for a filter that was not granted


class Will(NamedTuple):
    """What a client wants published if it vanishes."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


class Connect(NamedTuple):
    client_id: str
    clean_session: bool = True
    keepalive_s: int = 0
    """0 switches the check off."""
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    level: int = 4
    """4 for MQTT 3.1.1, 3 for MQTT 3.1."""


class Connack(NamedTuple):
    session_present: bool
    code: int


class Publish(NamedTuple):
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    """0 exactly when qos is 0."""


class Puback(NamedTuple):
    packet_id: int


class Pubrec(NamedTuple):
    packet_id: int


class Pubrel(NamedTuple):
    packet_id: int


class Pubcomp(NamedTuple):
    packet_id: int


class Subscribe(NamedTuple):
    packet_id: int
    filters: tuple[tuple[str, int], ...]
    """(topic filter, requested QoS), in the client's order."""


class Suback(NamedTuple):
    packet_id: int
    codes: tuple[int, ...]
    """Granted QoS or SUBSCRIBE_FAILED, one per filter."""


class Unsubscribe(NamedTuple):
    packet_id: int
    filters: tuple[str, ...]


class Unsuback(NamedTuple):
    packet_id: int


class Pingreq(NamedTuple):
    pass


class Pingresp(NamedTuple):
    pass


class Disconnect(NamedTuple):
    pass


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
)

_LEVELS = {"MQTT": 4, "MQIsdp": 3}
_CONNECT, _CONNACK, _PUBLISH, _SUBSCRIBE, _SUBACK, _UNSUBSCRIBE = 1, 2, 3, 8, 9, 10

# Packets that are a header and a packet id, and packets that are a header alone: type → (flags they must have, class).
_Ack: TypeAlias = type[Puback] | type[Pubrec] | type[Pubrel] | type[Pubcomp] | type[Unsuback]
_Bare: TypeAlias = type[Pingreq] | type[Pingresp] | type[Disconnect]
_ACKS: dict[int, tuple[int, _Ack]] = {
    4: (0, Puback),
    5: (0, Pubrec),
    6: (2, Pubrel),
    7: (0, Pubcomp),
    11: (0, Unsuback),
}
_BARE: dict[int, tuple[int, _Bare]] = {12: (0, Pingreq), 13: (0, Pingresp), 14: (0, Disconnect)}
_FIRST_BYTE = {cls: kind << 4 | flags for kind, (flags, cls) in (*_ACKS.items(), *_BARE.items())}

_U16 = struct.Struct("!H")
_ACK = struct.Struct("!BBH")


class Decoder:
    """
    Bytes of one connection → packets: feed() what arrived, then next() until it answers None.

    Keeps what is not yet a packet: at most one packet under the limit and what the last feed() brought. After an error
    it raises the same error again; the connection is over.
    """

    __slots__ = ("_buffer", "_cuts", "_max_packet_bytes", "_skipping")

    def __init__(self, max_packet_bytes: int = MAX_REMAINING_LENGTH, *, cuts: bool = False) -> None:
        """cuts: a PUBLISH over the limit is cut to it, the rest of its payload goes by. Otherwise it is an error."""
        self._buffer = bytearray()
        self._max_packet_bytes = max_packet_bytes
        self._cuts = cuts
        self._skipping = 0

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if self._skipping:
            skipped = min(self._skipping, len(data))
            self._skipping -= skipped
            data = data[skipped:]
        self._buffer += data

    def next(self) -> Packet | None:
        """The next whole packet, None if more bytes are needed, or ProtocolError."""
        buffer = self._buffer
        size = len(buffer)
        if size < 2:
            return None
        length = buffer[1]
        start = 2
        if length > 127:
            length &= 127
            shift = 7
            while True:
                if start == size:
                    return None
                byte = buffer[start]
                start += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
                if shift > 21:
                    raise MalformedPacket("remaining length is longer than four bytes")
        excess = length - self._max_packet_bytes
        if excess > 0:
            if not self._cuts or buffer[0] >> 4 != _PUBLISH:
                raise PacketTooLarge(length, self._max_packet_bytes)
            length -= excess
        end = start + length
        if size < end:
            return None
        with memoryview(buffer) as view:
            body = bytes(view[start:end])
        packet = _decode(buffer[0], body)
        del buffer[:end]
        if excess > 0:
            self._skipping = excess
            rest = bytes(buffer)
            buffer.clear()
            self.feed(rest)
        return packet


def _decode(first: int, body: bytes) -> Packet:
    kind, flags = first >> 4, first & 15
    try:
        if kind == _PUBLISH:
            return _decode_publish(flags, body)
        if kind in _ACKS:
            wanted, ack = _ACKS[kind]
            if flags != wanted or len(body) != 2:
                raise MalformedPacket(f"{ack.__name__.upper()} with wrong flags or length")
            return ack(_packet_id(body, 0))
        if kind in _BARE:
            wanted, bare = _BARE[kind]
            if flags != wanted or body:
                raise MalformedPacket(f"{bare.__name__.upper()} with wrong flags or length")
            return bare()
        if kind == _SUBSCRIBE and flags == 2:
            return _decode_subscribe(body)
        if kind == _UNSUBSCRIBE and flags == 2:
            return _decode_unsubscribe(body)
        if kind == _CONNECT and flags == 0:
            return _decode_connect(body)
        if kind == _SUBACK and flags == 0:
            return _decode_suback(body)
        if kind == _CONNACK and flags == 0:
            return _decode_connack(body)
    except InvalidTopic as exc:
        raise MalformedPacket(str(exc)) from exc
    raise MalformedPacket(f"packet type {kind} with flags {flags}")


def _take(body: bytes, at: int) -> tuple[bytes, int]:
    """The length-prefixed bytes at `at`, and where they end."""
    start = at + 2
    if len(body) < start:
        raise MalformedPacket("packet ends inside a length")
    end = start + (body[at] << 8 | body[at + 1])
    if len(body) < end:
        raise MalformedPacket("a string is longer than its packet")
    return body[start:end], end


def _take_text(body: bytes, at: int) -> tuple[str, int]:
    raw, end = _take(body, at)
    try:
        # [MQTT-1.5.3-1] ill-formed UTF-8, encoded surrogates included, closes the connection.
        return raw.decode(), end
    except UnicodeDecodeError as exc:
        raise MalformedPacket("a string is not UTF-8") from exc


def _packet_id(body: bytes, at: int) -> int:
    if len(body) < at + 2:
        raise MalformedPacket("packet ends before its packet id")
    packet_id = body[at] << 8 | body[at + 1]
    if packet_id == 0:
        raise MalformedPacket("packet id 0")  # [MQTT-2.3.1-1]
    return packet_id


def _decode_publish(flags: int, body: bytes) -> Publish:
    qos = flags >> 1 & 3
    topic, at = _take_text(body, 0)
    check_topic(topic)
    if qos == 0:
        # A DUP bit here breaks [MQTT-3.3.1-2], harms nobody, and mosquitto takes it.
        return Publish(topic, body[at:], 0, bool(flags & 1), bool(flags & 8))
    if qos == 3:
        raise MalformedPacket("PUBLISH with QoS 3")
    return Publish(topic, body[at + 2 :], qos, bool(flags & 1), bool(flags & 8), _packet_id(body, at))


def _decode_subscribe(body: bytes) -> Subscribe:
    packet_id = _packet_id(body, 0)
    filters = []
    at = 2
    while at < len(body):
        topic_filter, at = _take_text(body, at)
        check_filter(topic_filter)
        if at == len(body) or body[at] > 2:
            raise MalformedPacket("SUBSCRIBE without a QoS of 0, 1 or 2")
        filters.append((topic_filter, body[at]))
        at += 1
    if not filters:
        raise MalformedPacket("SUBSCRIBE without a filter")  # [MQTT-3.8.3-3]
    return Subscribe(packet_id, tuple(filters))


def _decode_unsubscribe(body: bytes) -> Unsubscribe:
    packet_id = _packet_id(body, 0)
    filters = []
    at = 2
    while at < len(body):
        topic_filter, at = _take_text(body, at)
        check_filter(topic_filter)
        filters.append(topic_filter)
    if not filters:
        raise MalformedPacket("UNSUBSCRIBE without a filter")  # [MQTT-3.10.3-2]
    return Unsubscribe(packet_id, tuple(filters))


def _decode_suback(body: bytes) -> Suback:
    codes = tuple(body[2:])
    if not codes or any(code > 2 and code != SUBSCRIBE_FAILED for code in codes):
        raise MalformedPacket("SUBACK without a known return code")
    return Suback(_packet_id(body, 0), codes)


def _decode_connack(body: bytes) -> Connack:
    if len(body) != 2 or body[0] > 1:
        raise MalformedPacket("CONNACK with wrong flags or length")
    return Connack(bool(body[0]), body[1])


def _decode_connect(body: bytes) -> Connect:
    name, at = _take_text(body, 0)
    if at == len(body):
        raise MalformedPacket("CONNECT ends before its protocol level")
    level = body[at]
    if _LEVELS.get(name) != level:
        raise UnsupportedVersion(name, level)  # what follows may have another shape, so it is not read
    if len(body) < at + 4:
        raise MalformedPacket("CONNECT ends before its keepalive")
    flags, keepalive_s = body[at + 1], body[at + 2] << 8 | body[at + 3]
    if flags & 1:
        raise MalformedPacket("CONNECT with the reserved flag set")  # [MQTT-3.1.2-3]
    has_will, will_qos = bool(flags & 4), flags >> 3 & 3
    if will_qos == 3 or (not has_will and flags & 0x38):
        raise MalformedPacket("CONNECT with contradicting will flags")  # [MQTT-3.1.2-11] to [-15]
    if flags & 0x40 and not flags & 0x80:
        raise MalformedPacket("CONNECT with a password and no user name")  # [MQTT-3.1.2-22]
    client_id, at = _take_text(body, at + 4)
    check_text(client_id)
    will = username = password = None
    if has_will:
        topic, at = _take_text(body, at)
        check_topic(topic)
        payload, at = _take(body, at)
        will = Will(topic, payload, will_qos, bool(flags & 0x20))
    if flags & 0x80:
        username, at = _take_text(body, at)
        check_text(username)
    if flags & 0x40:
        password, at = _take(body, at)
    if at != len(body):
        raise MalformedPacket("CONNECT with bytes after its last field")
    return Connect(client_id, bool(flags & 2), keepalive_s, will, username, password, level)


def encode(packet: Packet) -> bytes:
    """A packet as bytes. ValueError for what the format cannot hold."""
    match packet:
        case Publish():
            return encode_publish(packet)
        case Puback() | Pubrec() | Pubrel() | Pubcomp() | Unsuback():
            return _ACK.pack(_FIRST_BYTE[type(packet)], 2, packet.packet_id)
        case Pingreq() | Pingresp() | Disconnect():
            return bytes((_FIRST_BYTE[type(packet)], 0))
        case Connack(session_present, code):
            return bytes((_CONNACK << 4, 2, session_present, code))
        case Suback(packet_id, codes):
            return _frame(_SUBACK << 4, (_U16.pack(packet_id), bytes(codes)))
        case Subscribe(packet_id, requests):
            parts = [_prefixed(text.encode()) + bytes((qos,)) for text, qos in requests]
            return _frame(_SUBSCRIBE << 4 | 2, (_U16.pack(packet_id), *parts))
        case Unsubscribe(packet_id, filters):
            parts = [_prefixed(text.encode()) for text in filters]
            return _frame(_UNSUBSCRIBE << 4 | 2, (_U16.pack(packet_id), *parts))
        case Connect():
            return _encode_connect(packet)


def encode_publish(packet: Publish) -> bytes:
    """encode() of the one packet whose speed matters."""
    topic, payload, qos, retain, dup, packet_id = packet
    first = _PUBLISH << 4 | dup << 3 | qos << 1 | retain
    if qos:
        return _frame(first, (_prefixed(topic.encode()), _U16.pack(packet_id), payload))
    return _frame(first, (_prefixed(topic.encode()), payload))


def _encode_connect(packet: Connect) -> bytes:
    name = next(name for name, level in _LEVELS.items() if level == packet.level)
    flags = packet.clean_session << 1
    parts = [_prefixed(packet.client_id.encode())]
    if packet.will is not None:
        flags |= 4 | packet.will.qos << 3 | packet.will.retain << 5
        parts += [_prefixed(packet.will.topic.encode()), _prefixed(packet.will.payload)]
    if packet.username is not None:
        flags |= 0x80
        parts.append(_prefixed(packet.username.encode()))
    if packet.password is not None:
        flags |= 0x40
        parts.append(_prefixed(packet.password))
    head = struct.pack("!BBH", packet.level, flags, packet.keepalive_s)
    return _frame(_CONNECT << 4, (_prefixed(name.encode()), head, *parts))


def _prefixed(raw: bytes) -> bytes:
    if len(raw) > 0xFFFF:
        raise ValueError(f"a field of {len(raw)} bytes does not fit in MQTT, at most 65535 do")
    return _U16.pack(len(raw)) + raw


def _frame(first: int, parts: Sequence[bytes]) -> bytes:
    length = 0
    for part in parts:
        length += len(part)
    if length < 128:
        return b"".join((bytes((first, length)), *parts))
    if length > MAX_REMAINING_LENGTH:
        raise ValueError(f"a packet of {length} bytes does not fit in MQTT, at most {MAX_REMAINING_LENGTH} do")
    head = bytearray((first,))
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return b"".join((head, *parts))
