"""
When to dial again: a pure function of what went wrong and how often.

Full jitter (a uniform draw up to a bound that grows): a thousand nodes that lost one hub at once come
back spread over the bound, not in step. KubeEdge waits a fixed 30 s.

The bound grows by a third and does not double, because most hubs that are gone are back within seconds. A hub
that starts again in 3 s is found 0.8 s later on average and within 2.1 s in 19 of 20 cases, where doubling takes 2.3
and 6.6 s; for that a node dials six times where it dialled three to four. A dial that is refused costs nobody anything.
One that a busy hub does not answer takes link.transports.OPEN_S by itself, which spreads a fleet too large for this.
"""

from link.errors import LinkClosed, LinkError, RemoteProtocolError
from link.frames import GoodbyeCode

FIRST_S = 0.5
GROWTH = 1.3
MOST_S = 30.0
REFUSED_S = 60.0  # somebody must act: join again, stop the twin of this node
BANNED_S = 300.0  # somebody acted, and will hardly change his mind soon; restarting edgecore asks at once
DOUBTED = 3  # refusals as replaced, after which the hub is believed: just after joining its watch may be behind


def delay_s(error: LinkError, attempt: int, draw: float) -> float:
    """
    How long to wait before the next try.

    attempt: failures in a row, from 1. draw: uniform in [0, 1).
    """
    code = error.code if isinstance(error, LinkClosed) else None
    if code is GoodbyeCode.BANNED:
        return BANNED_S * (0.5 + draw)
    if code in (GoodbyeCode.FORBIDDEN, GoodbyeCode.SUPERSEDED) or (code is GoodbyeCode.REPLACED and attempt > DOUBTED):
        return REFUSED_S * (0.5 + draw)
    if isinstance(error, RemoteProtocolError) or code is GoodbyeCode.PROTOCOL:
        return MOST_S * (0.5 + draw)
    if code in (GoodbyeCode.RESYNC, GoodbyeCode.STALE, GoodbyeCode.AHEAD):
        return draw * FIRST_S
    asked = error.retry_after_s if isinstance(error, LinkClosed) else 0.0
    bound = min(MOST_S, FIRST_S * GROWTH ** min(attempt, 100))
    return asked + draw * bound
