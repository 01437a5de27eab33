"""The hub's side of the links: who gets in, who takes over, what goes out to whom."""

from apimachinery.events import EventType, WatchEvent
from apimachinery.inventory import digest
from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object, from_json
from apimachinery.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, PODS
from cloudhub.placement import By, Rule
from cloudhub.projection import project
from link.fields import MAX_BODY_BYTES
from link.frames import (
    PROTOCOL,
    Ack,
    Check,
    Cursor,
    Goodbye,
    GoodbyeCode,
    Granted,
    Held,
    Hello,
    Inventory,
    Nack,
    Push,
    Refusal,
    RefusedInterest,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Traffic,
    Wanted,
    Welcome,
)
from tests.harness.hubsite import ALL, MAY, MAY_NOT, NAMED, POLICIES, Site, hello, interested, kinds, names


def test_a_new_node_with_nothing_to_get_is_in_sync_at_once() -> None:
    site = Site()
    wire = site.streaming("n1")
    assert wire.take() == [Welcome("epoch1", 0, False, 20.0), Push(1, (), True)]
    assert [told.rpartition(" ")[0] for told in site.nodes.told] == ["n1 up"]
    wire.say(Ack(1))
    assert [(status.node, status.connected, status.synced) for status in site.hub.statuses()] == [("n1", True, True)]


def test_a_node_that_lacks_something_is_asked_for_its_inventory() -> None:
    site = Site()
    site.put(PODS, "web", spec={"nodeName": "n1", "volumes": [{"configMap": {"name": "conf"}}]})
    site.put(CONFIG_MAPS, "conf", data={})
    stale = ObjectKey(CONFIG_MAPS, "default", "stale")
    wire = site.connect("n1")
    was = ObjectVersion("u", "r")
    wire.say(Hello(PROTOCOL, "n1", None, digest([(stale, was)]), "agent", 1))
    site.work()
    assert wire.take() == [Welcome("epoch1", 0, True, 20.0)]
    wire.say(Inventory((Held(stale, was),), False))
    wire.say(Inventory((), True))
    site.work()
    [push] = wire.take()
    assert names(push) == ["-stale", "+conf", "+default", "+web"] or names(push) == ["+conf", "-stale", "+web"]
    assert isinstance(push, Push)
    assert push.synced


def test_a_change_reaches_the_nodes_that_need_it_and_no_others() -> None:
    site = Site()
    one, other = site.streaming("n1"), site.streaming("n2")
    one.take()
    other.take()
    pod = site.put(PODS, "web", spec={"nodeName": "n1"})
    site.work()
    assert [names(frame) for frame in one.take()] == [["+web"]]
    assert other.take() == []
    site.delete(pod)
    site.work()
    assert [names(frame) for frame in one.take()] == [["-web"]]


def test_an_object_for_all_nodes_reaches_all() -> None:
    site = Site((Rule(POLICIES, By.ALL_NODES),))
    wires = [site.streaming(f"n{number}") for number in range(3)]
    site.put(POLICIES, "p")
    site.work()
    assert all(names(wire.take()[-1]) == ["+p"] for wire in wires)


def test_a_resumed_node_gets_only_what_was_lost() -> None:
    site = Site()
    wire = site.streaming("n1")
    pod = site.put(PODS, "one", spec={"nodeName": "n1"})
    site.work()
    site.put(PODS, "two", spec={"nodeName": "n1"})
    site.work()
    assert [frame.seq for frame in wire.take() if isinstance(frame, Push)] == [1, 2, 3]
    wire.pump.connection_lost("cut")
    assert site.nodes.told[-1] == "n1 down"
    site.put(PODS, "three", spec={"nodeName": "n1"})
    again = site.connect("n1")
    again.say(hello("n1", [pod], Cursor("epoch1", 2)))
    site.work()
    welcome, push = again.take()
    assert welcome == Welcome("epoch1", 3, False, 20.0)
    assert names(push) == ["+two", "+three"] or names(push) == ["+three", "+two"]
    assert isinstance(push, Push)
    assert (push.seq, push.synced) == (4, True)


def test_after_the_grace_period_the_digest_does_the_same() -> None:
    site = Site()
    pod = site.put(PODS, "one", spec={"nodeName": "n1"})
    wire = site.streaming("n1", [pod])
    assert wire.take() == [Welcome("epoch1", 0, False, 20.0), Push(1, (), True)]
    wire.pump.connection_lost("cut")
    site.clock.run_until(59.0)
    site.hub.expire()
    assert len(site.hub.statuses()) == 1
    site.clock.run_until(61.0)
    site.hub.expire()
    assert site.hub.statuses() == []
    again = site.connect("n1")
    again.say(hello("n1", [pod], Cursor("epoch1", 1)))
    site.work()
    assert again.take() == [Welcome("epoch3", 0, False, 20.0), Push(1, (), True)]


# A replica that lags


def test_a_session_that_another_replica_has_overtaken_ends_and_says_by_whom() -> None:
    site = Site()
    for was_last, code in ((True, GoodbyeCode.SUPERSEDED), (False, GoodbyeCode.STALE)):
        wire = site.connect("n1")
        wire.say(hello("n1", term=5))
        site.work()
        wire.take()
        site.hub.overtaken(Node("n1"), 4, 9, was_last=was_last)  # said of a session that has ended since
        assert site.hub.is_connected(Node("n1"))
        site.hub.overtaken(Node("n1"), 5, 9, was_last=was_last)
        (goodbye,) = wire.take()
        assert isinstance(goodbye, Goodbye)
        assert (goodbye.code, goodbye.term) == (code, 9)
        assert not site.hub.is_connected(Node("n1"))
    assert (site.hub.counters.superseded, site.hub.counters.stale) == (1, 1)
    site.hub.overtaken(Node("n1"), 5, 9, was_last=True)


def test_identity_comes_from_the_certificate_only() -> None:
    site = Site()
    wire = site.connect("n1")
    wire.say(hello("n2"))
    assert wire.take() == [Goodbye(GoodbyeCode.FORBIDDEN, 'your certificate is for node "n1", not "n2"', 0.0)]
    for identity in ("somebody", "system:node:", "x:system:node:n1"):
        stranger = site.connect("", identity)
        assert [type(frame) for frame in stranger.take()] == [Goodbye]
        assert stranger.closed
    assert site.hub.statuses() == []
    assert site.nodes.told == []


def test_every_session_gets_its_turn() -> None:
    site = Site((Rule(POLICIES, By.ALL_NODES),))
    wires = [site.streaming(f"n{number}") for number in range(5)]
    for wire in wires:
        wire.take()
    site.put(POLICIES, "p")
    assert site.hub.work(2)
    assert sum(bool(wire.frames) for wire in wires) == 2
    assert site.hub.work(2)
    assert not site.hub.work(2)
    assert all(wire.frames for wire in wires)


def test_what_a_node_refuses_is_shown_and_tried_again_later() -> None:
    site = Site()
    wire = site.streaming("n1")
    pod = site.put(PODS, "bad", spec={"nodeName": "n1"})
    site.work()
    wire.take()
    wire.say(Nack(2, (Refusal(pod.key, "too odd"),)))
    wire.say(Ack(2))
    site.work()
    assert wire.take() == []
    assert site.hub.statuses()[0].refused == 1
    site.hub.retry_refused()
    site.work()
    assert [names(frame) for frame in wire.take()] == [["+bad"]]


"""Text that hardly packs: on its way it is longer than a push may be."""


def test_a_node_that_holds_nothing_is_not_asked_for_its_inventory() -> None:
    site = Site()
    site.put(PODS, "web", spec={"nodeName": "n1"})
    wire = site.streaming("n1")
    welcome, push = wire.take()
    assert welcome == Welcome("epoch1", 0, False, 20.0)
    assert names(push) == ["+web"]
    assert site.hub.counters.empty == 1


def test_a_node_at_rest_that_agrees_is_left_in_peace() -> None:
    site = Site()
    pod = site.put(PODS, "web", spec={"nodeName": "n1"})
    wire = site.streaming("n1", [pod])
    wire.say(Ack(1))
    wire.take()
    wire.say(Check(1, digest([(pod.key, pod.version)])))
    assert wire.take() == []
    assert site.hub.counters.divergences == 0


def test_a_node_at_rest_that_diverged_is_surveyed_and_healed() -> None:
    site = Site()
    pod = site.put(PODS, "web", spec={"nodeName": "n1"})
    wire = site.streaming("n1", [pod])
    wire.say(Ack(1))
    wire.take()
    wire.say(Check(1, digest([])))
    [goodbye] = wire.take()
    assert isinstance(goodbye, Goodbye)
    assert goodbye.code is GoodbyeCode.RESYNC
    assert site.hub.counters.divergences == 1
    again = site.connect("n1")
    again.say(hello("n1", [], Cursor("epoch1", 1)))
    site.work()
    assert [type(frame) for frame in again.take()] == [Welcome]
    again.say(Inventory((), True))
    site.work()
    assert [names(frame) for frame in again.take()] == [["+web"]]


def test_a_check_of_a_moment_that_has_passed_says_nothing() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.say(Ack(1))
    wire.take()
    site.put(PODS, "web", spec={"nodeName": "n1"})
    site.work()
    wire.take()
    wire.say(Check(1, digest([])))
    wire.say(Ack(2))
    wire.say(Check(1, digest([])))
    assert wire.take() == []
    assert site.hub.counters.divergences == 0


def test_a_resync_by_hand_asks_for_the_inventory_even_of_a_node_that_agrees() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    assert not site.hub.resync(Node("never-heard-of"))
    assert site.hub.resync(Node("n1"))
    again = site.connect("n1")
    again.say(hello("n1"))
    [welcome] = again.take()
    assert isinstance(welcome, Welcome)
    assert welcome.inventory
    assert site.hub.counters.surveyed == 1


def test_an_object_too_large_for_the_link_stops_nothing() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    site.put(PODS, "huge", spec={"nodeName": "n1", "blob": "x" * MAX_BODY_BYTES})
    site.put(PODS, "small", spec={"nodeName": "n1"})
    site.work()
    assert [names(frame) for frame in wire.take()] == [["+small"]]


def test_reports_go_to_the_sink_and_are_acknowledged_when_it_says_so() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    entry = ReportEntry(ObjectKey(PODS, "default", "web"), "state", b"{}")
    wire.say(Report(1, (entry,)))
    [(node, session, report)] = site.reports.accepted
    assert (node, report) == ("n1", Report(1, (entry,)))
    assert wire.take() == []
    ack = ReportAck(Traffic.INFRASTRUCTURE, (Span(1, 1),))
    site.hub.reported(session, ack)
    assert wire.take() == [ack]
    wire.pump.connection_lost("cut")
    site.hub.reported(session, ack)  # nobody is there to be told


def test_a_hub_that_stops_says_goodbye() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    site.hub.close("stopping", 2.0)
    assert wire.take() == [Goodbye(GoodbyeCode.SHUTDOWN, "stopping", 2.0)]


# ---- interests


def test_what_is_granted_is_pushed_and_kept_in_step() -> None:
    site = Site()
    site.put(POLICIES, "a")
    site.rights.decisions[ALL] = MAY
    wire = interested(site, ALL)
    welcome, granted, push = wire.take()
    assert isinstance(welcome, Welcome)
    assert granted == Granted(0, (), (POLICIES,))
    assert names(push) == ["+a"]
    assert isinstance(push, Push)
    assert push.synced
    item = site.put(POLICIES, "b")
    site.work()
    site.delete(item)
    site.work()
    assert kinds(wire) == ["+b!", "-b!"]


def test_a_granted_selection_that_is_empty_is_complete_with_an_empty_push() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    site.rights.decisions[ALL] = MAY
    wire.say(Wanted(1, (ALL,)))
    site.work()
    assert wire.take() == [Granted(1, (), (POLICIES,)), Push(2, (), True)]


def test_what_is_refused_is_said_and_what_is_taken_back_leaves() -> None:
    site = Site()
    site.put(POLICIES, "a")
    site.rights.decisions |= {ALL: MAY_NOT, NAMED: MAY}
    wire = interested(site, ALL, NAMED)
    site.put(POLICIES, "b")
    site.work()
    _, granted, *pushes = wire.take()
    assert granted == Granted(0, (RefusedInterest(ALL, 403, "no"),), (POLICIES,))
    assert [names(push) for push in pushes] == [[], ["+b"]]
    site.rights.decisions |= {ALL: MAY, NAMED: MAY_NOT}
    site.hub.decided(Node("n1"))
    site.work()
    assert kinds(wire) == ["Granted", "+a!"], "b is held by the other interest now"
    site.rights.decisions[ALL] = MAY_NOT
    site.hub.decided(Node("n1"))
    site.work()
    assert sorted(" ".join(kinds(wire)).replace("!", "").split()) == ["-a", "-b", "Granted"]
    site.hub.decided(Node("n1"))
    site.work()
    assert wire.take() == [], "nothing is new"


def test_what_is_not_wanted_any_more_leaves_but_for_what_is_placed() -> None:
    site = Site((Rule(POLICIES, By.LABEL, "node"),))
    site.rights.decisions[ALL] = MAY
    placed = Object(ObjectKey(POLICIES, "default", "mine"), ObjectVersion("u", "r"), {"node": "n1"}, b"{}")
    site.hub.changed(site.cache.apply(WatchEvent(EventType.ADDED, placed, "1")))
    site.put(POLICIES, "a")
    wire = interested(site, ALL)
    assert kinds(wire)[:2] == ["Welcome", "Granted"]
    wire.say(Wanted(1, ()))
    site.work()
    assert kinds(wire) == ["Granted", "-a!"]
    assert site.rights.wanted[Node("n1")] == ()


def test_a_node_that_resumes_with_other_interests_gets_the_difference() -> None:
    site = Site()
    a, _ = site.put(POLICIES, "a"), site.put(POLICIES, "b")
    site.rights.decisions |= {ALL: MAY, NAMED: MAY}
    wire = interested(site, ALL)
    assert kinds(wire) == ["Welcome", "Granted", "+a +b!"]
    wire.say(Ack(1))
    wire.pump.connection_lost("cut")
    again = interested(site, NAMED, held=[a], cursor=Cursor("epoch1", 1))
    assert site.hub.counters.resumed == 1
    assert kinds(again) == ["Welcome", "Granted", "-a!"]


def test_an_interest_counts_while_a_node_is_away_and_not_after() -> None:
    site = Site()
    site.rights.decisions[ALL] = MAY
    wire = interested(site, ALL)
    wire.pump.connection_lost("cut")
    site.put(POLICIES, "a")
    assert site.hub.statuses()[0].dirty == 1
    site.clock.run_until(61.0)
    site.hub.expire()
    assert site.rights.wanted[Node("n1")] == ()
    site.put(POLICIES, "b")
    assert site.hub.statuses() == []


def test_a_pod_that_comes_or_goes_has_its_nodes_interests_decided_anew() -> None:
    site = Site()
    site.rights.decisions[NAMED] = MAY_NOT
    wire = interested(site, NAMED)
    wire.take()
    site.rights.decisions[NAMED] = MAY
    site.put(PODS, "operator", spec={"nodeName": "n1", "serviceAccountName": "op"})
    site.work()
    assert kinds(wire) == ["Granted", "+operator!"]


def test_a_definition_comes_with_what_it_defines() -> None:
    site = Site()
    definition = project(from_json(CUSTOM_RESOURCE_DEFINITIONS, {"metadata": {"name": "policies.example.com"}}))
    site.hub.changed(site.cache.apply(WatchEvent(EventType.ADDED, definition, "1")))
    site.rights.decisions[ALL] = MAY
    wire = interested(site, ALL)
    assert kinds(wire) == ["Welcome", "Granted", "+policies.example.com!"]
