"""What nodes report and what becomes of it, as they travel."""

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS
from link.codec import decode, encode
from link.errors import RemoteProtocolError
from link.fields import MAX_ENTRIES, MAX_TEXT_BYTES
from link.frames import (
    MAX_REPORT_ENTRIES,
    REPORT_WINDOW_ENTRIES,
    RefusedEntry,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Traffic,
)

KEY = ObjectKey(CONFIG_MAPS, "default", "a")


def test_limits_of_reports() -> None:
    with pytest.raises(RemoteProtocolError, match="257 entries"):
        decode(encode(Report(1, (ReportEntry(KEY, "f", b""),) * (MAX_REPORT_ENTRIES + 1))))
    most = REPORT_WINDOW_ENTRIES + MAX_REPORT_ENTRIES
    assert decode(encode(ReportAck(Traffic.DEVICES, (Span(1, most),))))
    for many in (
        ReportAck(Traffic.DEVICES, (Span(1, most + 1),)),
        ReportAck(Traffic.DEVICES, (), (), (Span(1, 2**63 - 1),)),
    ):
        with pytest.raises(RemoteProtocolError, match="which is more than there can be"):
            decode(encode(many))
    refused = tuple(RefusedEntry(number, "\N{COLLISION SYMBOL}" * MAX_TEXT_BYTES) for number in range(1, MAX_ENTRIES))
    assert decode(encode(ReportAck(Traffic.DEVICES, (), refused)))


def test_the_class_of_a_report_is_in_its_tag() -> None:
    one, other = (encode(Report(1, (ReportEntry(KEY, "f", b""),), traffic)) for traffic in Traffic)
    assert one[1] != other[1]
    assert one[2:] == other[2:]
