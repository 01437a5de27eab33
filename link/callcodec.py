"""
Requests that a node has the hub make, and their answers, to arrays and back.

Invariants
    a body comes in parts of at most CHUNK_BYTES
    what is too long for the head of an answer is cut short: nobody can be asked to say it again
"""

from link.fields import MAX_SECONDS, MAX_SEQ, MAX_STATUS, MAX_TEXT_BYTES, Codec, Fields, cut
from link.frames import (
    CHUNK_BYTES,
    MAX_TARGET_BYTES,
    MAX_USER_BYTES,
    MAX_WARNINGS,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Frame,
    Taken,
)
from link.tags import Tag


def _encode_answer(frame: Answer) -> list[object]:
    head = None
    if frame.head is not None:
        status, content_type, retry_after_s, warnings, revision = frame.head
        told = [cut(text) for text in warnings[:MAX_WARNINGS]]
        head = [status, cut(content_type), min(retry_after_s, MAX_SECONDS), told, revision]
    return [Tag.ANSWER, frame.number, head, frame.body, frame.last]


def _decode_answer(fields: Fields) -> Frame:
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
        head = [method, target.encode(), user, cut(content_type), cut(accept), base, cut(agent)]
    return [Tag.CALL, frame.number, head, frame.body, frame.last]


def _decode_call(fields: Fields) -> Frame:
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


def _encode_cancel(frame: Cancel) -> list[object]:
    return [Tag.CANCEL, frame.number]


def _decode_cancel(fields: Fields) -> Frame:
    return Cancel(fields.integer("number", MAX_SEQ))


def _encode_taken(frame: Taken) -> list[object]:
    return [Tag.TAKEN, frame.seq]


def _decode_taken(fields: Fields) -> Frame:
    return Taken(fields.integer("seq", MAX_SEQ))


CODECS = (
    Codec(Answer, Tag.ANSWER, _encode_answer, _decode_answer),
    Codec(Call, Tag.CALL, _encode_call, _decode_call),
    Codec(Cancel, Tag.CANCEL, _encode_cancel, _decode_cancel),
    Codec(Taken, Tag.TAKEN, _encode_taken, _decode_taken),
)
