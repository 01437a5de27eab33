"""
What nodes report and what becomes of it, to arrays and back. The class of a Report is in its tag.

Invariants
    a Report has at most MAX_REPORT_ENTRIES entries
    a ReportAck tells of no more entries than can be under way, before anybody counts through its spans
"""

from apimachinery.keys import ObjectKey
from link.errors import RemoteProtocolError
from link.fields import MAX_BODY_BYTES, MAX_SEQ, MAX_TEXT_BYTES, Codec, Fields, cut, read_with_table, write_with_table
from link.frames import (
    MAX_REPORT_ENTRIES,
    REPORT_WINDOW_ENTRIES,
    Frame,
    RefusedEntry,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Traffic,
)
from link.tags import Tag


def _encode_report(frame: Report) -> list[object]:
    tag = Tag.REPORT if frame.traffic is Traffic.INFRASTRUCTURE else Tag.DEVICE_REPORT
    return [tag, frame.first, *write_with_table([(entry.key, [entry.field, entry.value]) for entry in frame.entries])]


def _decode_report(fields: Fields) -> Frame:
    return _report(fields, Traffic.INFRASTRUCTURE)


def _decode_device_report(fields: Fields) -> Frame:
    return _report(fields, Traffic.DEVICES)


def _report(fields: Fields, traffic: Traffic) -> Report:
    first = fields.integer("first", MAX_SEQ, 1)

    def entry(inner: Fields, key: ObjectKey) -> ReportEntry:
        return ReportEntry(key, inner.text("field", MAX_TEXT_BYTES, empty=False), inner.binary("value", MAX_BODY_BYTES))

    entries = read_with_table(fields, "entries", entry)
    if len(entries) > MAX_REPORT_ENTRIES:
        raise RemoteProtocolError(f"report: {len(entries)} entries are over {MAX_REPORT_ENTRIES}")
    return Report(first, entries, traffic)


def _encode_report_ack(frame: ReportAck) -> list[object]:
    refused = [[number, cut(reason)] for number, reason in frame.refused]
    return [Tag.REPORT_ACK, frame.traffic is Traffic.DEVICES, frame.settled, refused, frame.later]


def _decode_report_ack(fields: Fields) -> Frame:
    traffic = Traffic.DEVICES if fields.boolean("devices") else Traffic.INFRASTRUCTURE

    def span(inner: Fields) -> Span:
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


CODECS = (
    Codec(Report, Tag.DEVICE_REPORT, _encode_report, _decode_device_report),
    Codec(Report, Tag.REPORT, _encode_report, _decode_report),
    Codec(ReportAck, Tag.REPORT_ACK, _encode_report_ack, _decode_report_ack),
)
