"""Who is let in, who waits for what the node knows, and whom a newer connection ends."""

from unittest.mock import ANY

from apimachinery.inventory import digest
from apimachinery.keys import Node
from apimachinery.resources import PODS
from cloudhub.horizon import Advance
from cloudhub.interests import UNKNOWN, Decision
from cloudhub.lobby import LAG_S, MAX_AHEAD_MS, MAX_UNGREETED, Denial
from link.frames import (
    MAX_TERM,
    PROTOCOL,
    Ack,
    Check,
    Goodbye,
    GoodbyeCode,
    Granted,
    Held,
    Hello,
    Interest,
    Inventory,
    Position,
    Push,
    RefusedInterest,
    Report,
    Welcome,
)
from tests.harness.hubsite import ALL, MAY, NOW_MS, POLICIES, Site, hello, interested, kinds


def test_who_is_banned_is_ended_at_once_and_turned_away_from_then_on() -> None:
    site = Site()
    wire, other = site.streaming("n1"), site.streaming("n2")
    parked = site.connect("n3")
    parked.say(hello("n3")._replace(interests=(Interest(PODS),)))
    wire.take()
    ban = Denial(GoodbyeCode.BANNED, "node n1 is banned: stolen")
    site.door.refused = {"n1": ban, "n3": ban}
    for node in ("n1", "n2", "n3", "never seen"):
        site.hub.recheck(Node(node))
    goodbye = Goodbye(GoodbyeCode.BANNED, "node n1 is banned: stolen", 0.0)
    assert wire.take() == parked.take() == [goodbye]
    assert (wire.closed, parked.closed, other.closed) == (True, True, False)
    assert site.nodes.told[-1] == "n1 down"
    wire.say(Report(1, ()))
    assert site.reports.accepted == [], "nobody listens to it any more"
    again = site.streaming("n1")
    assert again.take() == [goodbye]
    assert (site.hub.counters.banned, site.door.told) == (3, ["n1 banned", "n3 banned", "n1 banned"])
    site.door.refused = {}
    assert isinstance(site.streaming("n1").take()[0], Welcome)


def test_a_connection_is_held_against_who_had_the_name_when_it_was_last_found_good() -> None:
    site = Site()
    wire = site.connect("n1", key="one")
    wire.say(hello("n1"))
    site.door.joined = {"n1": "one"}
    site.hub.recheck(Node("n1"))
    site.door.refused = {"one": Denial(GoodbyeCode.REPLACED, "renewed")}
    site.hub.recheck(Node("n1"))
    assert not wire.closed, "its machine has another key by now"
    site.door.joined = {"n1": "another"}
    site.hub.recheck(Node("n1"))
    assert (wire.closed, site.hub.counters.replaced) == (True, 1)


def test_a_key_that_counts_no_more_does_not_end_who_has_the_name() -> None:
    site = Site()
    site.door.refused = {"old": Denial(GoodbyeCode.REPLACED, "another machine")}
    newer = site.connect("n1", key="new")
    newer.say(hello("n1"))
    older = site.connect("n1", key="old")
    older.say(hello("n1"))
    assert older.take() == [Goodbye(GoodbyeCode.REPLACED, "another machine", 0.0)]
    assert (newer.closed, site.hub.counters.replaced, site.hub.counters.superseded) == (False, 1, 0)


def test_a_node_that_was_superseded_while_it_lived_is_told_of() -> None:
    site = Site()
    site.connect("n1", remote="192.0.2.1:5").say(hello("n1"))
    site.connect("n1", remote="192.0.2.2:5").say(hello("n1"))
    assert (site.door.twice, site.hub.counters.superseded) == ([], 1), "a broken line does that, too"
    late = site.connect("n1", remote="192.0.2.1:6")
    late.say(hello("n1", term=1)._replace(superseded=True))
    assert site.door.twice == [], "it says so again, with a term that counts"
    site.connect("n1", remote="192.0.2.1:7").say(hello("n1")._replace(superseded=True))
    assert site.door.twice == [(Node("n1"), ["192.0.2.2:5", "192.0.2.1:7"])]
    assert site.hub.counters.clones == 1


def test_the_newer_connection_takes_over_after_the_older_has_ended() -> None:
    site = Site()
    older = site.streaming("n1")
    older.take()
    newer = site.streaming("n1")
    assert older.take() == [Goodbye(GoodbyeCode.SUPERSEDED, "another connection of n1 took over", 0.0)]
    assert older.closed
    assert [told.split()[1] for told in site.nodes.told] == ["up", "down", "up"]
    assert len(site.reports.closed) == 1
    assert isinstance(newer.take()[0], Welcome)
    older.pump.connection_lost("late news")
    assert site.hub.is_connected(Node("n1"))


def test_a_connection_that_its_node_has_left_takes_nothing_over() -> None:
    site = Site()
    late, live = site.connect("n1"), site.connect("n1")
    live.say(hello("n1", term=8))
    site.work()
    live.take()
    for term in (7, 8):
        late = site.connect("n1")
        late.say(hello("n1", term=term))
        assert late.take() == [Goodbye(GoodbyeCode.STALE, "n1 has had a connection of term 8", 0.0, 8)]
        assert late.closed
    assert site.hub.counters.stale == 2
    assert live.take() == []
    assert site.nodes.told == ["n1 up 8"]


def test_nobody_keeps_a_node_out_with_the_last_term_that_there_is() -> None:
    site = Site()
    limit = NOW_MS + MAX_AHEAD_MS
    for term in (MAX_TERM, limit + 1):
        thief = site.connect("n1")
        thief.say(hello("n1", term=term))
        [goodbye] = thief.take()
        assert isinstance(goodbye, Goodbye)
        assert (goodbye.code, goodbye.term) == (GoodbyeCode.AHEAD, NOW_MS)
        assert "is the clock of n1 right?" in goodbye.reason
        assert thief.closed
    for highest, term in ((0, limit), (limit, limit + 1)):
        assert highest < term
        node = site.connect("n1")
        node.say(hello("n1", term=term))
        assert isinstance(node.take()[0], Welcome), "there is always a higher one"
    site.nodes.lease = limit + 1000
    node = site.connect("n1")
    node.say(hello("n1", term=limit + 1002))
    assert node.take() == [Goodbye(GoodbyeCode.AHEAD, ANY, 0.0, limit + 1000)]
    node = site.connect("n1")
    node.say(hello("n1", term=limit + 1001))
    assert isinstance(node.take()[0], Welcome), "as another replica has had one"
    assert site.hub.counters.ahead == 3


def after(hello: Hello, **horizon: int) -> Hello:
    return hello._replace(horizon=tuple(Position(name, version) for name, version in horizon.items()))


def test_a_hub_that_has_seen_less_than_the_node_was_told_of_waits_until_it_has() -> None:
    site = Site()
    site.hub.advanced(PODS, Advance("7"))
    wire = site.connect("n1")
    wire.say(after(hello("n1"), pods=9))
    site.work()
    assert wire.take() == []
    site.hub.advanced(PODS, Advance("8"))
    assert not site.hub.is_connected(Node("n1"))
    site.hub.advanced(PODS, Advance("9", is_bookmark=True))
    site.work()
    assert [type(frame) for frame in wire.take()] == [Welcome, Push]
    assert site.hub.counters.lagging == 0
    site.clock.run_until(60.0)


def test_a_hub_that_never_catches_up_goes_on_and_takes_back_what_the_node_was_told() -> None:
    """As after a restore of the apiserver from a backup."""
    site = Site()
    site.hub.advanced(PODS, Advance("7"))
    wire = site.connect("n1")
    wire.say(after(hello("n1"), pods=9))
    site.clock.run_until(LAG_S - 0.1)
    assert wire.take() == []
    site.clock.run_until(LAG_S + 0.1)
    site.work()
    welcome, push = wire.take()
    assert push == Push(1, (), True, (Position("pods", 7),))
    assert isinstance(welcome, Welcome)
    assert site.hub.counters.lagging == 1


def test_a_connection_that_is_lost_while_it_waits_leaves_nothing_behind() -> None:
    site = Site()
    site.hub.advanced(PODS, Advance("7"))
    wire = site.connect("n1")
    wire.say(after(hello("n1"), pods=9))
    wire.pump.connection_lost("cut")
    site.clock.run_until(60.0)
    assert site.hub.counters.lagging == 0
    assert site.hub.statuses() == []


def test_the_newer_connection_takes_over_from_one_that_waits() -> None:
    site = Site()
    site.hub.advanced(PODS, Advance("7"))
    older, newer, late = (site.connect("n1") for _ in range(3))
    older.say(after(hello("n1", term=500), pods=9))
    newer.say(after(hello("n1", term=501), pods=9))
    late.say(after(hello("n1", term=499), pods=9))
    assert [frame.code for frame in older.take() if isinstance(frame, Goodbye)] == [GoodbyeCode.SUPERSEDED]
    assert [frame.code for frame in late.take() if isinstance(frame, Goodbye)] == [GoodbyeCode.STALE]
    site.hub.advanced(PODS, Advance("9"))
    assert [type(frame) for frame in newer.take()] == [Welcome]
    assert site.nodes.told == ["n1 up 501"]


def test_a_hub_that_stops_says_goodbye_to_those_who_wait_too() -> None:
    site = Site()
    site.hub.advanced(PODS, Advance("7"))
    wire = site.connect("n1")
    wire.say(after(hello("n1"), pods=9))
    site.hub.close("stopping", retry_after_s=2.0)
    assert wire.take() == [Goodbye(GoodbyeCode.SHUTDOWN, "stopping", 2.0)]


def test_of_one_node_few_connections_may_wait_to_say_hello() -> None:
    site = Site()
    silent = [site.connect("n1") for _ in range(MAX_UNGREETED)]
    one_more = site.connect("n1")
    [goodbye] = one_more.take()
    assert isinstance(goodbye, Goodbye)
    assert (goodbye.code, goodbye.retry_after_s) == (GoodbyeCode.OVERLOADED, 1.0)
    assert not site.connect("n2").closed, "another node has nothing to do with it"
    silent[0].say(Hello(PROTOCOL, "n1", None, b"", "agent", 1))
    assert isinstance(silent[0].take()[0], Welcome)
    assert not site.connect("n1").closed
    assert site.connect("n1").closed


def test_a_hello_waits_until_its_interests_are_decided() -> None:
    site = Site()
    item = site.put(POLICIES, "a")
    wire = interested(site, ALL, held=[item])
    assert wire.take() == []
    site.rights.decisions[ALL] = MAY
    site.hub.decided(Node("n1"))
    site.work()
    assert kinds(wire) == ["Welcome", "Granted", "!"], "it holds what it should: nothing is asked or sent again"
    assert site.hub.counters.identical == 1


def test_a_hello_does_not_wait_for_ever_and_what_is_unknown_stays() -> None:
    site = Site()
    item = site.put(POLICIES, "a")
    site.delete(item)
    wire = interested(site, ALL, held=[item])
    site.clock.run_until(site.clock.time() + LAG_S)
    site.work()
    [welcome] = wire.take()
    assert welcome == Welcome("epoch1", 0, True, 20.0)
    wire.say(Inventory((Held(item.key, item.version),), True))
    site.work()
    granted, push = wire.take()
    assert granted == Granted(0, (RefusedInterest(ALL, UNKNOWN, "soon"),), ())
    assert push == Push(1, (), True)
    wire.say(Ack(1))
    wire.say(Check(1, digest([(item.key, item.version)])))
    assert site.hub.counters.divergences == 0
    assert site.hub.counters.undecided == 1
    site.rights.decisions[ALL] = MAY
    site.hub.decided(Node("n1"))
    site.work()
    assert kinds(wire) == ["Granted", "-a!"], "it is known now, and is gone"


def test_what_is_known_to_be_in_trouble_is_not_waited_for() -> None:
    site = Site()
    site.rights.decisions[ALL] = Decision(UNKNOWN, "the hub cannot list it")
    wire = interested(site, ALL)
    assert kinds(wire) == ["Welcome", "Granted", "!"]


def test_a_node_that_leaves_while_it_waits_wants_nothing_any_more() -> None:
    site = Site()
    wire = interested(site, ALL)
    wire.pump.connection_lost("cut")
    assert site.rights.wanted[Node("n1")] == ()
