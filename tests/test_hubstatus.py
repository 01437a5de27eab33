"""How a node stands, as the hub tells it: connected or away, in sync or not, and what it was refused."""

from cloudhub.hubstatus import SessionStatus
from link.frames import Ack
from tests.harness.hubsite import ALL, MAY_NOT, Site, interested, kinds


def test_a_node_is_told_of_as_it_stands_also_while_it_is_away() -> None:
    site = Site()
    site.rights.decisions[ALL] = MAY_NOT
    wire = interested(site, ALL)
    assert kinds(wire)[-1] == "!", "it has everything"
    [before] = site.hub.statuses()
    assert not before.synced, "until it says that it does"
    wire.say(Ack(1))
    [status] = site.hub.statuses()
    assert status == SessionStatus(
        "n1", True, "test", "agent", status.outbox, 0, True, 0, 1, interests_refused=1, transport="websocket"
    )
    wire.pump.connection_lost("cut")
    [away] = site.hub.statuses()
    assert away == status._replace(connected=False, remote="", agent="", transport="")
