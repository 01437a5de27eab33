"""
When an edge renews its certificate, looks for other CAs, and tries again: a pure function of what the certificate says.

Each certificate has its own moment, drawn from its own bytes: a thousand nodes that joined in one afternoon do not come
back in one afternoon, and a node that restarts does not draw again. All times scale with the certificate's life, for
installations that issue them for an hour; of those for a year the limits below are what counts.
"""

import hashlib
from datetime import datetime

from componentbase.certificates import Validity

EARLIEST, LATEST = 1 / 2, 2 / 3
"""Of its life; then a third is left for a hub that is away, and for somebody to notice."""
CHECK_S = 6 * 3600.0  # so that a change of CAs is through within a working day; it costs one TLS handshake
LINKED_S = 600.0  # a hub that started again is not asked by all of its nodes at once
RETRY_FIRST_S = 10.0
RETRY_MOST_S = 3600.0
RETRY_LAPSED_S = 60.0  # of a node that cannot connect until it has renewed


def renew_at(certificate_pem: bytes, found: Validity) -> datetime:
    """Between a half and two thirds of its life."""
    drawn = int.from_bytes(hashlib.sha256(certificate_pem).digest()[:4], "big") / (1 << 32)
    return found.made + (found.lapses - found.made) * (EARLIEST + (LATEST - EARLIEST) * drawn)


def check_s(lifetime_s: float, draw: float) -> float:
    """How long until the hub's CAs are looked at again. draw: uniform in [0, 1)."""
    return _within(lifetime_s / 10, 1.0, CHECK_S) * (0.5 + draw / 2)


def linked_s(lifetime_s: float, draw: float) -> float:
    """How long after the link came up they are."""
    return _within(lifetime_s / 10, 1.0, LINKED_S) * draw


def retry_s(lifetime_s: float, attempt: int, draw: float, *, has_lapsed: bool) -> float:
    """
    How long until the next attempt.

    attempt: failures in a row, from 1.
    """
    most = _within(lifetime_s / 20, 1.0, RETRY_LAPSED_S if has_lapsed else RETRY_MOST_S)
    return float(min(most, RETRY_FIRST_S * 2 ** min(attempt - 1, 20))) * (0.5 + draw / 2)


def _within(value: float, least: float, most: float) -> float:
    return max(least, min(most, value))
