"""
Frames to bytes and back: one msgpack array per frame, its first element the frame's tag.

The other side is not trusted. Every length is checked before anything of that length is made, every
field's type before it is used, and whatever is wrong raises RemoteProtocolError and nothing else.

A delta is encoded by itself and carried as a byte string, so that a hub can encode one object once and
send it to any number of nodes.

Invariants
    decode(encode(frame)) == frame
    len(data) > MAX_FRAME_BYTES is refused before it is looked at
"""

import enum
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgpack

from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from link import nesting
from link.errors import LocalProtocolError, RemoteProtocolError
from link.frames import (
    CHUNK_BYTES,
    MAX_HORIZON,
    MAX_INTERESTS,
    MAX_NAME_BYTES,
    MAX_REPORT_ENTRIES,
    MAX_TARGET_BYTES,
    MAX_TERM,
    MAX_TRANSFER_BYTES,
    MAX_USER_BYTES,
    MAX_VERSION,
    MAX_WARNINGS,
    REPORT_WINDOW_ENTRIES,
    Ack,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Check,
    Cursor,
    Delta,
    Frame,
    Goodbye,
    GoodbyeCode,
    Granted,
    Held,
    Hello,
    Interest,
    Inventory,
    Lane,
    Nack,
    Part,
    Ping,
    Pong,
    Position,
    Push,
    Refusal,
    RefusedEntry,
    RefusedInterest,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)

MAX_FRAME_BYTES = 4 << 20  # the largest object Kubernetes takes is 3 MiB (its request limit), plus room for its key
MAX_BODY_BYTES = 3 << 20
MAX_UNPACKED_BYTES = 4 << 20  # what the bodies of one Push may come to when unpacked: a node commits them together
MAX_REPORT_BYTES = 1 << 20  # of a Report frame: a window is 64 KiB, and one value at worst 100 KiB as JSON writes it
MAX_TEXT_BYTES = 1024
MAX_STATUS = 599
MAX_ENTRIES = 1024  # per frame, which take a hub 15 ms; a larger inventory comes in chunks
MAX_ELEMENTS = 16 * MAX_ENTRIES  # of all arrays of a frame; as many entries and resources as may be have 12 for each
MAX_NESTING = 3  # a frame, a list in it, an entry of that
MAX_DELTA_ELEMENTS = 16  # it has eleven, and no array in it
MAX_SEQ = 2**63 - 1  # SQLite's largest integer, where the cursor is kept
MAX_SECONDS = 86_400.0

_T = TypeVar("_T")

_kind = lru_cache(256)(Resource)
"""Keys of one kind share it: made anew for each, it takes 0.5 KB of whoever keeps the key."""


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


_REMOVED = 0
_WHOLE = 1
_PATCH = 2
_PACKED = 3
"""How a delta carries its object: not at all, whole, told against a version that the node holds, whole and packed."""


_SMALL_BYTES = 16 << 10
_pack_small = msgpack.Packer(use_bin_type=True, buf_size=2 * _SMALL_BYTES).pack
"""Half of what packb takes, which makes a buffer each time. This one stays as large as what it was used for."""


def encode(frame: Frame) -> bytes:
    """One frame as one message. Raises LocalProtocolError when it is larger than the other side would take."""
    return _packed(type(frame), _ENCODERS[type(frame)](frame))


def encode_push(seq: int, deltas: Sequence[bytes] | int, synced: bool, horizon: Sequence[Position] = ()) -> bytes:
    """encode() of a Push whose deltas are encoded already. deltas: or the number of the transfer that is its delta."""
    fields: list[object] = [Tag.PUSH, seq, synced, deltas, horizon]
    if type(deltas) is list and len(deltas) == 1 and len(deltas[0]) <= _SMALL_BYTES:
        data: bytes = _pack_small(fields)
        return data
    return _packed(Push, fields)


def _packed(kind: type[Frame], fields: list[object]) -> bytes:
    data: bytes = msgpack.packb(fields, use_bin_type=True)
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
    fields = _Fields(_unpack(data, "frame"), "frame")
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
    data: bytes = _pack_small(head) if len(delta.body) <= _SMALL_BYTES else msgpack.packb(head, use_bin_type=True)
    return data


def decode_delta(data: bytes) -> Delta:
    """The inverse of encode_delta. Raises RemoteProtocolError."""
    nesting.check(data, "delta", deep=1, elements=MAX_DELTA_ELEMENTS)
    fields = _Fields(_unpack(data, "delta"), "delta")
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


def _unpack(data: bytes, what: str) -> Any:
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=MAX_TEXT_BYTES,
            max_bin_len=MAX_FRAME_BYTES,
            max_array_len=MAX_ENTRIES,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as exc:
        raise RemoteProtocolError(f"not a {what}: {exc or type(exc).__name__}") from exc


class _Fields:
    """Reads the elements of an array one after another, each checked."""

    def __init__(self, value: Any, what: str) -> None:
        if not isinstance(value, list):
            raise RemoteProtocolError(f"a {what} must be an array")
        self._values = value
        self._next = 0
        self._what = what

    def _take(self, name: str) -> Any:
        if self._next >= len(self._values):
            raise RemoteProtocolError(f"{self._what}: {name} is missing")
        value = self._values[self._next]
        self._next += 1
        return value

    def is_integer(self) -> bool:
        """Whether the next element is one."""
        return self._next < len(self._values) and type(self._values[self._next]) is int

    def end(self) -> None:
        if self._next != len(self._values):
            raise RemoteProtocolError(f"{self._what}: {len(self._values) - self._next} elements too many")

    def integer(self, name: str, most: int, least: int = 0) -> int:
        value = self._take(name)
        if type(value) is not int or not least <= value <= most:
            raise RemoteProtocolError(f"{self._what}: {name} must be an integer from {least} to {most}")
        return value

    def size(self) -> int:
        """Of a body that is to be unpacked."""
        return self.integer("size", MAX_BODY_BYTES, 1)

    def seconds(self, name: str) -> float:
        value = self._take(name)
        if type(value) not in (int, float) or not 0 <= value <= MAX_SECONDS:
            raise RemoteProtocolError(f"{self._what}: {name} must be a number from 0 to {MAX_SECONDS:g}")
        return float(value)

    def boolean(self, name: str) -> bool:
        value = self._take(name)
        if type(value) is not bool:
            raise RemoteProtocolError(f"{self._what}: {name} must be a boolean")
        return value

    def text(self, name: str, most: int = MAX_NAME_BYTES, *, empty: bool = True) -> str:
        value = self._take(name)
        if type(value) is not str or len(value) > most or not (value or empty):
            raise RemoteProtocolError(f"{self._what}: {name} must be a string of at most {most} characters")
        return value

    def binary(self, name: str, most: int) -> bytes:
        value = self._take(name)
        if type(value) is not bytes or len(value) > most:
            raise RemoteProtocolError(f"{self._what}: {name} must be at most {most} bytes")
        return value

    def array(self, name: str) -> list[Any]:
        value = self._take(name)
        if type(value) is not list:
            raise RemoteProtocolError(f"{self._what}: {name} must be an array")
        return value

    def records(self, name: str, read: "Callable[[_Fields], _T]") -> tuple[_T, ...]:
        found = []
        for value in self.array(name):
            fields = _Fields(value, f"{self._what}: {name}")
            found.append(read(fields))
            fields.end()
        return tuple(found)

    def resource(self) -> Resource:
        group, version = self.text("group"), self.text("version", empty=False)
        plural, kind = self.text("plural", empty=False), self.text("kind", empty=False)
        return _kind(group, version, plural, kind, self.boolean("namespaced"))

    def key(self) -> ObjectKey:
        return ObjectKey(self.resource(), self.text("namespace"), self.text("name", empty=False))

    def horizon(self) -> tuple[Position, ...]:
        found = self.records(
            "horizon",
            lambda inner: Position(inner.text("collection", empty=False), inner.integer("version", MAX_VERSION)),
        )
        if len(found) > MAX_HORIZON:
            raise RemoteProtocolError(f"{self._what}: a horizon of more than {MAX_HORIZON} entries")
        return found

    def interests(self) -> tuple[Interest, ...]:
        table = self.records("resources", _Fields.resource)
        found = self.records("interests", lambda inner: inner.interest(table))
        if len(found) > MAX_INTERESTS:
            raise RemoteProtocolError(f"{self._what}: more than {MAX_INTERESTS} interests")
        return found

    def interest(self, table: Sequence[Resource]) -> Interest:
        resource = self.placed(table)
        return Interest(resource, self.text("namespace"), self.text("name"), self.text("user", MAX_USER_BYTES))

    def placed(self, table: Sequence[Resource]) -> Resource:
        """A resource by its place in a table."""
        place = self.integer("resource", MAX_ENTRIES)
        if place >= len(table):
            raise RemoteProtocolError(f"{self._what}: there is no resource {place}")
        return table[place]

    def optional(self, name: str) -> "_Fields | None":
        """An array within this one, or nil."""
        value = self._take(name)
        return None if value is None else _Fields(value, f"{self._what}: {name}")

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        found = self.array(name)
        if len(found) > most or not all(type(text) is str and len(text) <= MAX_TEXT_BYTES for text in found):
            raise RemoteProtocolError(f"{self._what}: {name} must be at most {most} strings")
        return tuple(found)

    def line(self, name: str, most: int) -> str:
        """A text that may be longer than others, carried as bytes."""
        try:
            return self.binary(name, most).decode()
        except UnicodeDecodeError as exc:
            raise RemoteProtocolError(f"{self._what}: {name} is no UTF-8") from exc

    def version(self) -> ObjectVersion:
        return ObjectVersion(self.text("uid"), self.text("revision", empty=False))


class _Resources:
    """The resources of a frame's entries, each told once."""

    def __init__(self) -> None:
        self.places: dict[Resource, int] = {}

    def place(self, resource: Resource) -> int:
        return self.places.setdefault(resource, len(self.places))

    def table(self) -> list[list[object]]:
        return [list(resource) for resource in self.places]


def _read_with_table(fields: _Fields, name: str, read: "Callable[[_Fields, ObjectKey], _T]") -> tuple[_T, ...]:
    """Entries that begin with [place in the table, namespace, name]."""
    table = fields.records("resources", _Fields.resource)

    def entry(inner: _Fields) -> _T:
        return read(inner, ObjectKey(inner.placed(table), inner.text("namespace"), inner.text("name", empty=False)))

    return fields.records(name, entry)


def _write_with_table(rows: Sequence[tuple[ObjectKey, list[object]]]) -> list[object]:
    resources = _Resources()
    entries = [[resources.place(key.resource), key.namespace, key.name, *rest] for key, rest in rows]
    return [resources.table(), entries]


# One encoder and one decoder per frame, in alphabetical order.


def _encode_ack(frame: Ack) -> list[object]:
    return [Tag.ACK, frame.seq]


def _decode_ack(fields: _Fields) -> Frame:
    return Ack(fields.integer("seq", MAX_SEQ))


def _encode_answer(frame: Answer) -> list[object]:
    head = None
    if frame.head is not None:
        status, content_type, retry_after_s, warnings, revision = frame.head
        told = [_cut(text) for text in warnings[:MAX_WARNINGS]]
        head = [status, _cut(content_type), min(retry_after_s, MAX_SECONDS), told, revision]
    return [Tag.ANSWER, frame.number, head, frame.body, frame.last]


def _decode_answer(fields: _Fields) -> Frame:
    number, head = fields.integer("number", MAX_SEQ), None
    if (inner := fields.optional("head")) is not None:
        head = AnswerHead(
            inner.integer("status", MAX_STATUS, 100),
            inner.text("content_type", MAX_TEXT_BYTES),
            inner.seconds("retry_after_s"),
            inner.texts("warnings", MAX_WARNINGS),
            inner.text("revision"),
        )
        inner.end()
    return Answer(number, head, fields.binary("body", CHUNK_BYTES), fields.boolean("last"))


def _encode_call(frame: Call) -> list[object]:
    head = None
    if frame.head is not None:
        method, target, user, content_type, accept, base, agent = frame.head
        # Bytes, because a text of msgpack may have MAX_TEXT_BYTES only.
        head = [method, target.encode(), user, _cut(content_type), _cut(accept), base, _cut(agent)]
    return [Tag.CALL, frame.number, head, frame.body, frame.last]


def _decode_call(fields: _Fields) -> Frame:
    number, head = fields.integer("number", MAX_SEQ), None
    if (inner := fields.optional("head")) is not None:
        head = CallHead(
            inner.text("method", 16, empty=False),
            inner.line("target", MAX_TARGET_BYTES),
            inner.text("user", MAX_USER_BYTES),
            inner.text("content_type", MAX_TEXT_BYTES),
            inner.text("accept", MAX_TEXT_BYTES),
            inner.text("base"),
            inner.text("agent", MAX_TEXT_BYTES),
        )
        inner.end()
    return Call(number, head, fields.binary("body", CHUNK_BYTES), fields.boolean("last"))


def _cut(text: str) -> str:
    return text[: MAX_TEXT_BYTES // 4]


def _encode_cancel(frame: Cancel) -> list[object]:
    return [Tag.CANCEL, frame.number]


def _decode_cancel(fields: _Fields) -> Frame:
    return Cancel(fields.integer("number", MAX_SEQ))


def _encode_check(frame: Check) -> list[object]:
    return [Tag.CHECK, frame.seq, frame.digest]


def _decode_check(fields: _Fields) -> Frame:
    return Check(fields.integer("seq", MAX_SEQ), fields.binary("digest", 64))


def _encode_goodbye(frame: Goodbye) -> list[object]:
    return [Tag.GOODBYE, frame.code.value, frame.reason[: MAX_TEXT_BYTES // 4], frame.retry_after_s, frame.term]


def _decode_goodbye(fields: _Fields) -> Frame:
    try:
        code = GoodbyeCode(fields.text("code"))
    except ValueError as exc:
        raise RemoteProtocolError(f"goodbye: {exc}") from exc
    reason, retry_after_s = fields.text("reason", MAX_TEXT_BYTES), fields.seconds("retry_after_s")
    return Goodbye(code, reason, retry_after_s, fields.integer("term", MAX_TERM))


def _encode_granted(frame: Granted) -> list[object]:
    resources = _Resources()
    refused = [
        [*_interest(resources, refusal.interest), refusal.code, _cut(refusal.reason)] for refusal in frame.refused
    ]
    return [Tag.GRANTED, frame.number, resources.table(), refused, [list(resource) for resource in frame.resources]]


def _decode_granted(fields: _Fields) -> Frame:
    number, table = fields.integer("number", MAX_SEQ), fields.records("resources", _Fields.resource)

    def entry(inner: _Fields) -> RefusedInterest:
        interest = inner.interest(table)
        return RefusedInterest(interest, inner.integer("code", MAX_STATUS, 400), inner.text("reason", MAX_TEXT_BYTES))

    refused, granted = fields.records("refused", entry), fields.records("granted", _Fields.resource)
    if max(len(refused), len(granted)) > MAX_INTERESTS:
        raise RemoteProtocolError(f"granted: more than {MAX_INTERESTS} interests")
    return Granted(number, refused, granted)


def _encode_hello(frame: Hello) -> list[object]:
    cursor = None if frame.cursor is None else list(frame.cursor)
    head = [Tag.HELLO, frame.protocol, frame.node, cursor, frame.digest, frame.agent, frame.term]
    return [*head, frame.horizon, *_interests(frame), frame.superseded]


def _decode_hello(fields: _Fields) -> Frame:
    protocol = fields.integer("protocol", 65_535)
    node = fields.text("node", empty=False)
    value = fields._take("cursor")
    cursor = None
    if value is not None:
        inner = _Fields(value, "cursor")
        cursor = Cursor(inner.text("epoch", 64, empty=False), inner.integer("seq", MAX_SEQ))
        inner.end()
    held, agent = fields.binary("digest", 64), fields.text("agent")
    term, horizon = fields.integer("term", MAX_TERM, 1), fields.horizon()
    return Hello(protocol, node, cursor, held, agent, term, horizon, fields.interests(), fields.boolean("superseded"))


def _interests(frame: Hello | Wanted) -> list[object]:
    resources = _Resources()
    entries = [_interest(resources, interest) for interest in frame.interests]
    return [resources.table(), entries]


def _interest(resources: _Resources, interest: Interest) -> list[object]:
    return [resources.place(interest.resource), interest.namespace, interest.name, interest.user]


def _encode_inventory(frame: Inventory) -> list[object]:
    return [Tag.INVENTORY, *_write_with_table([(held.key, list(held.version)) for held in frame.entries]), frame.last]


def _decode_inventory(fields: _Fields) -> Frame:
    entries = _read_with_table(fields, "entries", lambda inner, key: Held(key, inner.version()))
    return Inventory(entries, fields.boolean("last"))


def _encode_nack(frame: Nack) -> list[object]:
    rows: list[tuple[ObjectKey, list[object]]] = [
        (refusal.key, [refusal.reason[: MAX_TEXT_BYTES // 4], refusal.whole]) for refusal in frame.refusals
    ]
    return [Tag.NACK, frame.seq, *_write_with_table(rows)]


def _decode_nack(fields: _Fields) -> Frame:
    seq = fields.integer("seq", MAX_SEQ)

    def entry(inner: _Fields, key: ObjectKey) -> Refusal:
        return Refusal(key, inner.text("reason", MAX_TEXT_BYTES), inner.boolean("whole"))

    return Nack(seq, _read_with_table(fields, "refusals", entry))


def _encode_part(frame: Part) -> list[object]:
    return [Tag.PART, frame.number, frame.size, frame.body]


def _decode_part(fields: _Fields) -> Frame:
    number, size = fields.integer("number", MAX_SEQ, 1), fields.integer("size", MAX_TRANSFER_BYTES)
    return Part(number, size, fields.binary("body", CHUNK_BYTES))


def _encode_ping(frame: Ping) -> list[object]:
    return [Tag.PING, frame.number]


def _decode_ping(fields: _Fields) -> Frame:
    return Ping(fields.integer("number", MAX_SEQ))


def _encode_pong(frame: Pong) -> list[object]:
    return [Tag.PONG, frame.number]


def _decode_pong(fields: _Fields) -> Frame:
    return Pong(fields.integer("number", MAX_SEQ))


def _encode_push(frame: Push) -> list[object]:
    deltas = frame.transfer or [encode_delta(delta) for delta in frame.deltas]
    return [Tag.PUSH, frame.seq, frame.synced, deltas, frame.horizon]


def _decode_push(fields: _Fields) -> Frame:
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


def _encode_report(frame: Report) -> list[object]:
    tag = Tag.REPORT if frame.traffic is Traffic.INFRASTRUCTURE else Tag.DEVICE_REPORT
    return [tag, frame.first, *_write_with_table([(entry.key, [entry.field, entry.value]) for entry in frame.entries])]


def _decode_report(fields: _Fields) -> Frame:
    return _report(fields, Traffic.INFRASTRUCTURE)


def _decode_device_report(fields: _Fields) -> Frame:
    return _report(fields, Traffic.DEVICES)


def _report(fields: _Fields, traffic: Traffic) -> Report:
    first = fields.integer("first", MAX_SEQ, 1)

    def entry(inner: _Fields, key: ObjectKey) -> ReportEntry:
        return ReportEntry(key, inner.text("field", MAX_TEXT_BYTES, empty=False), inner.binary("value", MAX_BODY_BYTES))

    entries = _read_with_table(fields, "entries", entry)
    if len(entries) > MAX_REPORT_ENTRIES:
        raise RemoteProtocolError(f"report: {len(entries)} entries are over {MAX_REPORT_ENTRIES}")
    return Report(first, entries, traffic)


def _encode_report_ack(frame: ReportAck) -> list[object]:
    refused = [[number, reason[: MAX_TEXT_BYTES // 4]] for number, reason in frame.refused]
    return [Tag.REPORT_ACK, frame.traffic is Traffic.DEVICES, frame.settled, refused, frame.later]


def _decode_report_ack(fields: _Fields) -> Frame:
    traffic = Traffic.DEVICES if fields.boolean("devices") else Traffic.INFRASTRUCTURE

    def span(inner: _Fields) -> Span:
        first = inner.integer("first", MAX_SEQ, 1)
        return Span(first, inner.integer("last", MAX_SEQ, first))

    settled = fields.records("settled", span)
    refused = fields.records(
        "refused", lambda inner: RefusedEntry(inner.integer("number", MAX_SEQ, 1), inner.text("reason", MAX_TEXT_BYTES))
    )
    later = fields.records("later", span)
    # Before anybody counts through them: more than were reported is nonsense.
    told = len(refused) + sum(last - first + 1 for first, last in (*settled, *later))
    if told > REPORT_WINDOW_ENTRIES + MAX_REPORT_ENTRIES:
        raise RemoteProtocolError(f"reportack: of {told} entries, which is more than there can be")
    return ReportAck(traffic, settled, refused, later)


def _encode_taken(frame: Taken) -> list[object]:
    return [Tag.TAKEN, frame.seq]


def _decode_taken(fields: _Fields) -> Frame:
    return Taken(fields.integer("seq", MAX_SEQ))


def _encode_wanted(frame: Wanted) -> list[object]:
    return [Tag.WANTED, frame.number, *_interests(frame)]


def _decode_wanted(fields: _Fields) -> Frame:
    return Wanted(fields.integer("number", MAX_SEQ), fields.interests())


def _encode_welcome(frame: Welcome) -> list[object]:
    return [Tag.WELCOME, frame.epoch, frame.seq, frame.inventory, frame.heartbeat_s]


def _decode_welcome(fields: _Fields) -> Frame:
    return Welcome(
        fields.text("epoch", 64, empty=False),
        fields.integer("seq", MAX_SEQ),
        fields.boolean("inventory"),
        fields.seconds("heartbeat_s"),
    )


class _Codec(NamedTuple):
    frame: type
    tag: Tag
    encode: Callable[[Any], list[object]]
    decode: Callable[[_Fields], Frame]


_CODECS = (
    _Codec(Ack, Tag.ACK, _encode_ack, _decode_ack),
    _Codec(Answer, Tag.ANSWER, _encode_answer, _decode_answer),
    _Codec(Call, Tag.CALL, _encode_call, _decode_call),
    _Codec(Cancel, Tag.CANCEL, _encode_cancel, _decode_cancel),
    _Codec(Check, Tag.CHECK, _encode_check, _decode_check),
    _Codec(Goodbye, Tag.GOODBYE, _encode_goodbye, _decode_goodbye),
    _Codec(Granted, Tag.GRANTED, _encode_granted, _decode_granted),
    _Codec(Hello, Tag.HELLO, _encode_hello, _decode_hello),
    _Codec(Inventory, Tag.INVENTORY, _encode_inventory, _decode_inventory),
    _Codec(Nack, Tag.NACK, _encode_nack, _decode_nack),
    _Codec(Part, Tag.PART, _encode_part, _decode_part),
    _Codec(Ping, Tag.PING, _encode_ping, _decode_ping),
    _Codec(Pong, Tag.PONG, _encode_pong, _decode_pong),
    _Codec(Push, Tag.PUSH, _encode_push, _decode_push),
    _Codec(Report, Tag.DEVICE_REPORT, _encode_report, _decode_device_report),
    _Codec(Report, Tag.REPORT, _encode_report, _decode_report),
    _Codec(ReportAck, Tag.REPORT_ACK, _encode_report_ack, _decode_report_ack),
    _Codec(Taken, Tag.TAKEN, _encode_taken, _decode_taken),
    _Codec(Wanted, Tag.WANTED, _encode_wanted, _decode_wanted),
    _Codec(Welcome, Tag.WELCOME, _encode_welcome, _decode_welcome),
)
_ENCODERS = {codec.frame: codec.encode for codec in _CODECS}
_DECODERS = {int(codec.tag): codec.decode for codec in _CODECS}
