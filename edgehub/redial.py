"""
When to dial again: a pure function of what went wrong and how often.

Full jitter (a uniform draw up to a bound that doubles): a thousand nodes that lost one hub at once come
back spread over the bound, not in step. KubeEdge waits a fixed 30 s.
"""

from link.errors import LinkClosed, LinkError, RemoteProtocolError
from link.frames import GoodbyeCode

FIRST_S = 0.5
MOST_S = 30.0
REFUSED_S = 60.0  # somebody must act: join again, stop the twin of this node


def delay_s(error: LinkError, attempt: int, draw: float) -> float:
    """
    How long to wait before the next try.

    attempt: failures in a row, from 1. draw: uniform in [0, 1).
    """
    if isinstance(error, LinkClosed) and error.code in (GoodbyeCode.FORBIDDEN, GoodbyeCode.SUPERSEDED):
        return REFUSED_S * (0.5 + draw)
    if isinstance(error, RemoteProtocolError) or (isinstance(error, LinkClosed) and error.code is GoodbyeCode.PROTOCOL):
        return MOST_S * (0.5 + draw)
    if isinstance(error, LinkClosed) and error.code in (GoodbyeCode.RESYNC, GoodbyeCode.STALE):
        return draw * FIRST_S
    asked = error.retry_after_s if isinstance(error, LinkClosed) else 0.0
    bound = min(MOST_S, FIRST_S * 2.0 ** min(attempt, 10))
    return asked + draw * bound
