"""
Frames that a connection begins with, is kept by and ends with, and what a node is interested in, to arrays and back.

Invariants
    a Hello or a Wanted has at most MAX_INTERESTS interests, a Granted as many answers of each sort
"""

from link.errors import RemoteProtocolError
from link.fields import (
    MAX_SEQ,
    MAX_STATUS,
    MAX_TEXT_BYTES,
    Codec,
    Fields,
    ResourceTable,
    cut,
    read_with_table,
    write_with_table,
)
from link.frames import (
    MAX_INTERESTS,
    MAX_TERM,
    Check,
    Cursor,
    Frame,
    Goodbye,
    GoodbyeCode,
    Granted,
    Held,
    Hello,
    Interest,
    Inventory,
    Ping,
    Pong,
    RefusedInterest,
    Wanted,
    Welcome,
)
from link.tags import Tag


def _encode_goodbye(frame: Goodbye) -> list[object]:
    return [Tag.GOODBYE, frame.code.value, cut(frame.reason), frame.retry_after_s, frame.term]


def _decode_goodbye(fields: Fields) -> Frame:
    try:
        code = GoodbyeCode(fields.text("code"))
    except ValueError as exc:
        raise RemoteProtocolError(f"goodbye: {exc}") from exc
    reason, retry_after_s = fields.text("reason", MAX_TEXT_BYTES), fields.seconds("retry_after_s")
    return Goodbye(code, reason, retry_after_s, fields.integer("term", MAX_TERM))


def _encode_granted(frame: Granted) -> list[object]:
    resources = ResourceTable()
    refused = [
        [*_interest(resources, refusal.interest), refusal.code, cut(refusal.reason)] for refusal in frame.refused
    ]
    return [Tag.GRANTED, frame.number, resources.table(), refused, [list(resource) for resource in frame.resources]]


def _decode_granted(fields: Fields) -> Frame:
    number, table = fields.integer("number", MAX_SEQ), fields.records("resources", Fields.resource)

    def entry(inner: Fields) -> RefusedInterest:
        interest = inner.interest(table)
        return RefusedInterest(interest, inner.integer("code", MAX_STATUS, 400), inner.text("reason", MAX_TEXT_BYTES))

    refused, granted = fields.records("refused", entry), fields.records("granted", Fields.resource)
    if max(len(refused), len(granted)) > MAX_INTERESTS:
        raise RemoteProtocolError(f"granted: more than {MAX_INTERESTS} interests")
    return Granted(number, refused, granted)


def _encode_hello(frame: Hello) -> list[object]:
    cursor = None if frame.cursor is None else list(frame.cursor)
    head = [Tag.HELLO, frame.protocol, frame.node, cursor, frame.digest, frame.agent, frame.term]
    return [*head, frame.horizon, *_interests(frame), frame.superseded]


def _decode_hello(fields: Fields) -> Frame:
    protocol = fields.integer("protocol", 65_535)
    node = fields.text("node", empty=False)
    cursor = None
    if (inner := fields.optional("cursor")) is not None:
        cursor = Cursor(inner.text("epoch", 64, empty=False), inner.integer("seq", MAX_SEQ))
        inner.end()
    held, agent = fields.binary("digest", 64), fields.text("agent")
    term, horizon = fields.integer("term", MAX_TERM, 1), fields.horizon()
    return Hello(protocol, node, cursor, held, agent, term, horizon, fields.interests(), fields.boolean("superseded"))


def _interests(frame: Hello | Wanted) -> list[object]:
    resources = ResourceTable()
    entries = [_interest(resources, interest) for interest in frame.interests]
    return [resources.table(), entries]


def _interest(resources: ResourceTable, interest: Interest) -> list[object]:
    return [resources.place(interest.resource), interest.namespace, interest.name, interest.user]


def _encode_inventory(frame: Inventory) -> list[object]:
    return [Tag.INVENTORY, *write_with_table([(held.key, list(held.version)) for held in frame.entries]), frame.last]


def _decode_inventory(fields: Fields) -> Frame:
    entries = read_with_table(fields, "entries", lambda inner, key: Held(key, inner.version()))
    return Inventory(entries, fields.boolean("last"))


def _encode_check(frame: Check) -> list[object]:
    return [Tag.CHECK, frame.seq, frame.digest]


def _decode_check(fields: Fields) -> Frame:
    return Check(fields.integer("seq", MAX_SEQ), fields.binary("digest", 64))


def _encode_ping(frame: Ping) -> list[object]:
    return [Tag.PING, frame.number]


def _decode_ping(fields: Fields) -> Frame:
    return Ping(fields.integer("number", MAX_SEQ))


def _encode_pong(frame: Pong) -> list[object]:
    return [Tag.PONG, frame.number]


def _decode_pong(fields: Fields) -> Frame:
    return Pong(fields.integer("number", MAX_SEQ))


def _encode_wanted(frame: Wanted) -> list[object]:
    return [Tag.WANTED, frame.number, *_interests(frame)]


def _decode_wanted(fields: Fields) -> Frame:
    return Wanted(fields.integer("number", MAX_SEQ), fields.interests())


def _encode_welcome(frame: Welcome) -> list[object]:
    return [Tag.WELCOME, frame.epoch, frame.seq, frame.inventory, frame.heartbeat_s]


def _decode_welcome(fields: Fields) -> Frame:
    return Welcome(
        fields.text("epoch", 64, empty=False),
        fields.integer("seq", MAX_SEQ),
        fields.boolean("inventory"),
        fields.seconds("heartbeat_s"),
    )


CODECS = (
    Codec(Check, Tag.CHECK, _encode_check, _decode_check),
    Codec(Goodbye, Tag.GOODBYE, _encode_goodbye, _decode_goodbye),
    Codec(Granted, Tag.GRANTED, _encode_granted, _decode_granted),
    Codec(Hello, Tag.HELLO, _encode_hello, _decode_hello),
    Codec(Inventory, Tag.INVENTORY, _encode_inventory, _decode_inventory),
    Codec(Ping, Tag.PING, _encode_ping, _decode_ping),
    Codec(Pong, Tag.PONG, _encode_pong, _decode_pong),
    Codec(Wanted, Tag.WANTED, _encode_wanted, _decode_wanted),
    Codec(Welcome, Tag.WELCOME, _encode_welcome, _decode_welcome),
)
