"""
What can be told of a certificate without `cryptography`: how long it is valid, and which one it is.

A running edgecore renews its own certificate and has to know when that lapses. The library that reads certificates
properly costs it 9 MB for as long as it lives; the two times are at a fixed place in DER (RFC 5280, 4.1), which is read
here. Nothing is believed because of it: what is to be trusted is OpenSSL's to say, in each handshake.

Pure: the time is nobody's argument here but what the certificate says.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

BACKDATE = timedelta(minutes=5)
"""Ours are valid from so long before they are made: a node without a battery for its clock may be a little behind."""

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18


class Validity(NamedTuple):
    """When a certificate of ours was made and when it lapses, in UTC."""

    made: datetime
    lapses: datetime

    @property
    def lifetime_s(self) -> float:
        return (self.lapses - self.made).total_seconds()


def ders(pem: bytes) -> list[bytes]:
    """The certificates in a PEM text, in their order. Raises ValueError where one is damaged."""
    try:
        return [base64.b64decode(b"".join(body.split()), validate=True) for body in _PEM.findall(pem)]
    except binascii.Error as exc:
        raise ValueError("the PEM text is damaged") from exc


def pem_of(der: bytes) -> bytes:
    body = base64.b64encode(der)
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]  # RFC 7468, 2
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))


def fingerprints(pem: bytes) -> list[str]:
    """SHA-256 of each certificate's DER, in hexadecimal, in their order. Raises ValueError."""
    return [hashlib.sha256(der).hexdigest() for der in ders(pem)]


def validity(pem: bytes) -> Validity:
    """Of the first certificate. Raises ValueError where there is none."""
    found = ders(pem)
    if not found:
        raise ValueError("there is no certificate in PEM form")
    try:
        return _validity(found[0])
    except (IndexError, ValueError) as exc:
        raise ValueError("it is not a certificate") from exc


def _validity(der: bytes) -> Validity:
    [(_, certificate)] = [*_parts(der)][:1]
    [(_, signed)] = [*_parts(certificate)][:1]
    fields = [content for tag, content in _parts(signed) if tag != _VERSION]
    # serial number, algorithm, issuer, validity
    times = [_time(tag, content) for tag, content in _parts(fields[3])]
    return Validity(times[0] + BACKDATE, times[1])


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The values in a constructed one: tag and content. Raises ValueError, or IndexError at the end of what is cut."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("it is cut short")
        yield tag, data[at : at + size]
        at += size


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # RFC 5280, 4.1.2.5.1: a year from 50 on is of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("a time is none")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
