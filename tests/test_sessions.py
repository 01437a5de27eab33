"""The hub's side of the links: who gets in, who takes over, what goes out to whom."""

import itertools
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest.mock import ANY

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.events import EventType, WatchEvent
from apimachinery.inventory import digest
from apimachinery.keys import Node, ObjectKey, ObjectVersion, Resource
from apimachinery.objects import Object, from_json
from apimachinery.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, DEVICES, PODS
from apimachinery.watchcache import WatchCache
from cloudhub import sessions, transfers
from cloudhub.horizon import Advance
from cloudhub.interests import GRANTED, UNKNOWN, Decision
from cloudhub.placement import STANDARD_RULES, By, Placement, Rule
from cloudhub.projection import project
from cloudhub.sessions import (
    DEVICE_FRAME_BYTES,
    FRAME_BYTES,
    LAG_S,
    MAX_AHEAD_MS,
    MAX_REFUSALS_TOLD,
    MAX_UNGREETED,
    PREPARED_BYTES,
    REPORT_BYTES_PER_S,
    REPORTS_BURST,
    REPORTS_PER_S,
    Denial,
    Hub,
    Session,
)
from cloudhub.wires import ASIDE_BYTES, UNPACKING, Parts
from link.codec import MAX_BODY_BYTES, decode, decode_delta, encode
from link.exchange import Whole
from link.frames import (
    CHUNK_BYTES,
    DEVICE_WINDOW_BYTES,
    MAX_CALLS,
    MAX_REPORT_ENTRIES,
    MAX_TERM,
    PROTOCOL,
    Ack,
    Answer,
    AnswerHead,
    Call,
    CallHead,
    Cancel,
    Check,
    Cursor,
    Delta,
    Frame,
    Goodbye,
    GoodbyeCode,
    Granted,
    Held,
    Hello,
    Interest,
    Inventory,
    Nack,
    Part,
    Position,
    Push,
    Refusal,
    RefusedInterest,
    Report,
    ReportAck,
    ReportEntry,
    Span,
    Taken,
    Traffic,
    Wanted,
    Welcome,
)
from link.packing import unpack
from link.pump import Pump
from tests.harness.pods import deployed_pod
from tests.sim.clock import SimClock

POLICIES = Resource("example.com", "v1", "policies", "Policy", True)


TERMS = itertools.count(1)
NOW_MS = 1_800_000_000_000


class Wire:
    """The hub's end of one node's connection."""

    kind = "websocket"

    def __init__(self, identity: str, key: str = "", remote: str = "test") -> None:
        self.identity, self.key, self.remote = identity, key, remote
        self.frames: list[Frame] = []
        self.closed = False
        self.pump: Pump

    def write(self, messages: Sequence[bytes]) -> None:
        self.frames += map(decode, messages)

    def close(self) -> None:
        self.closed = True

    def say(self, frame: Frame) -> None:
        self.pump.message_received(encode(frame))

    def take(self) -> list[Frame]:
        frames, self.frames = self.frames, []
        return frames


class Reports:
    def __init__(self) -> None:
        self.accepted: list[tuple[Node, Session, Report]] = []
        self.closed: list[Session] = []

    def accept(self, node: Node, session: Session, report: Report) -> None:
        self.accepted.append((node, session, report))

    def session_closed(self, session: Session) -> None:
        self.closed.append(session)


class Nodes:
    def __init__(self) -> None:
        self.told: list[str] = []
        self.lease = 0

    def session_up(self, node: Node, term: int) -> None:
        self.told.append(f"{node} up {term}")

    def session_down(self, node: Node) -> None:
        self.told.append(f"{node} down")

    def last_term(self, node: Node) -> int:
        return self.lease


class Rights:
    """Decides as it is told; what it was told nothing of is pending."""

    def __init__(self) -> None:
        self.wanted: dict[Node, tuple[Interest, ...]] = {}
        self.decisions: dict[Interest, Decision] = {}

    def want(self, node: Node, interests: Sequence[Interest]) -> None:
        self.wanted[node] = tuple(interests)

    def decision(self, node: Node, interest: Interest) -> Decision:
        assert interest in self.wanted[node]
        return self.decisions.get(interest, Decision(UNKNOWN, "soon", is_pending=True))


class Door:
    """Refuses whom it is told to, by node or by key."""

    def __init__(self) -> None:
        self.refused: dict[str, Denial] = {}
        self.told: list[str] = []
        self.twice: list[tuple[Node, Sequence[str]]] = []
        self.joined: dict[str, str] = {}
        """By node: the machine that has its name, which keeps its connection whatever is refused."""

    def refusal(self, node: Node, key: str, *, joined_with: str | None = None) -> Denial | None:
        if joined_with is not None and joined_with == self.joined.get(node):
            return None
        return self.refused.get(node) or self.refused.get(key)

    def joined_with(self, node: Node) -> str | None:
        return self.joined.get(node)

    def turned_away(self, node: Node, refusal: Denial) -> None:
        self.told.append(f"{node} {refusal.code}")

    def superseded(self, node: Node, remotes: Sequence[str]) -> None:
        self.twice.append((node, remotes))


class Desk:
    """Keeps calls until the test answers them."""

    def __init__(self) -> None:
        self.calls: list[Whole[CallHead]] = []
        self.cancelled: list[int] = []
        self.closed: list[Session] = []
        self.is_full = False

    def has_room(self, session: Session) -> bool:
        return not self.is_full

    def begin(self, session: Session, call: Whole[CallHead]) -> None:
        self.calls.append(call)

    def refuse(self, session: Session, number: int) -> None:
        session.answer(number, AnswerHead(429), b"")

    def cancel(self, session: Session, number: int) -> None:
        self.cancelled.append(number)

    def session_closed(self, session: Session) -> None:
        self.closed.append(session)


class Site:
    """A hub on a hand-fed cache."""

    def __init__(self, rules: tuple[Rule, ...] = STANDARD_RULES) -> None:
        self.clock, self.cache, self.reports, self.nodes = SimClock(), WatchCache(), Reports(), Nodes()
        self.epochs = iter(f"epoch{number}" for number in range(100))
        self.woken = 0
        self.rights, self.desk, self.door = Rights(), Desk(), Door()
        self.hub = Hub(
            self.cache,
            Placement(rules),
            self.reports,
            self.nodes,
            access=self.rights,
            calls=self.desk,
            door=self.door,
            clock=self.clock,
            now_ms=lambda: NOW_MS,
            new_epoch=lambda: next(self.epochs),
            wake=self.wake,
            grace_s=60.0,
        )

    def wake(self) -> None:
        self.woken += 1

    def put(self, resource: Resource, name: str, **content: Any) -> Object:
        item = project(
            from_json(resource, {"metadata": {"name": name, "namespace": "default", "uid": name}, **content})
        )
        self.hub.changed(self.cache.apply(WatchEvent(EventType.MODIFIED, item, "1")))
        return item

    def delete(self, item: Object) -> None:
        self.hub.changed(self.cache.apply(WatchEvent(EventType.DELETED, item, "2")))

    def connect(self, node: str, identity: str = "", **more: str) -> Wire:
        wire = Wire(identity or f"system:node:{node}", **more)
        wire.pump = self.hub.opened(wire)
        return wire

    def work(self) -> None:
        while self.hub.work():
            pass

    def streaming(self, node: str, held: Sequence[Object] = ()) -> Wire:
        """Connected and told that it has everything; it held nothing before."""
        wire = self.connect(node)
        wire.say(hello(node, held))
        self.work()
        return wire


def hello(node: str, held: Sequence[Object] = (), cursor: Cursor | None = None, term: int = 0) -> Hello:
    """term: 0 for a higher one than any before."""
    fingerprint = digest((item.key, item.version) for item in held)
    return Hello(PROTOCOL, node, cursor, fingerprint, "agent", term or next(TERMS))


def names(frame: Frame) -> list[str]:
    assert isinstance(frame, Push)
    return [("-" if delta.version is None else "+") + delta.key.name for delta in frame.deltas]


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


def test_an_inventory_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_INVENTORY", 10)
    site = Site()
    wire = site.connect("n1")
    wire.say(Hello(PROTOCOL, "n1", None, b"something", "agent", 1))
    held = [Held(ObjectKey(PODS, "default", f"p{number}"), ObjectVersion("u", "r")) for number in range(11)]
    wire.say(Inventory(tuple(held[:10]), False))
    wire.say(Inventory(tuple(held[:10]), False))
    assert [type(frame) for frame in wire.take()] == [Welcome], "the same again is nothing more"
    wire.say(Inventory(tuple(held[10:]), False))
    assert wire.closed
    assert isinstance(goodbye := wire.take()[-1], Goodbye)
    assert (goodbye.code, goodbye.reason) == (GoodbyeCode.PROTOCOL, "an inventory of more than 10 objects")


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


# A replica that lags


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


def test_a_push_says_how_far_the_hub_had_seen_what_it_speaks_of_and_what_refers_to_that() -> None:
    site = Site()
    site.hub.advanced(PODS, Advance("7"))
    site.hub.advanced(CONFIG_MAPS, Advance("8"))
    pod = site.put(PODS, "one", spec={"nodeName": "n1"})
    wire = site.connect("n1")
    wire.say(hello("n1", [pod]))
    site.work()
    assert wire.take()[1] == Push(1, (), True)
    site.put(PODS, "one", spec={"nodeName": "n1", "x": 1})
    site.hub.advanced(PODS, Advance("9"))
    site.work()
    (push,) = wire.take()
    assert isinstance(push, Push)
    assert push.horizon == (Position("pods", 9),)
    volumes = [{"configMap": {"name": "conf"}}]
    site.put(PODS, "one", spec={"nodeName": "n1", "volumes": volumes})
    site.hub.advanced(PODS, Advance("10"))
    site.put(CONFIG_MAPS, "conf", data={})
    site.work()
    (push,) = wire.take()
    assert isinstance(push, Push)
    assert push.horizon == (Position("configmaps", 8), Position("pods", 10))


def test_a_hub_that_stops_says_goodbye_to_those_who_wait_too() -> None:
    site = Site()
    site.hub.advanced(PODS, Advance("7"))
    wire = site.connect("n1")
    wire.say(after(hello("n1"), pods=9))
    site.hub.close("stopping", retry_after_s=2.0)
    assert wire.take() == [Goodbye(GoodbyeCode.SHUTDOWN, "stopping", 2.0)]


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


def test_the_window_bounds_what_is_under_way() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.say(Ack(1))
    wire.take()
    rng = random.Random(1)
    for number in range(100):
        site.put(PODS, f"p{number}", spec={"nodeName": "n1", "blob": rng.randbytes(5_000).hex()})
    site.work()
    under_way = [frame for frame in wire.take() if isinstance(frame, Push)]
    assert 200_000 < sum(len(encode(frame)) for frame in under_way) < 300_000
    assert not any(frame.synced for frame in under_way)
    received = sum(len(frame.deltas) for frame in under_way)
    while received < 100:
        wire.say(Ack(under_way[-1].seq))
        site.work()
        under_way = [frame for frame in wire.take() if isinstance(frame, Push)]
        received += sum(len(frame.deltas) for frame in under_way)
    assert under_way[-1].synced


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


def test_a_changed_body_goes_as_a_difference_and_whole_where_that_is_of_no_use() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    old = site.put(PODS, "web", spec={"nodeName": "n1", "blob": "x" * 2000})
    site.work()
    wire.say(Ack(2))
    wire.take()
    new = site.put(PODS, "web", spec={"nodeName": "n1", "blob": "x" * 2000 + "y"})
    site.work()
    [push] = wire.take()
    assert isinstance(push, Push)
    [delta] = push.deltas
    assert (delta.version, delta.base) == (new.version, old.version.revision)
    assert len(delta.body) < 100
    wire.say(Nack(3, (Refusal(new.key, "told against a version that is not held", whole=True),)))
    wire.say(Ack(3))
    site.work()
    [push] = wire.take()
    assert isinstance(push, Push)
    assert [(delta.version, delta.base, delta.body) for delta in push.deltas] == [(new.version, "", new.body)]
    assert site.hub.counters.healed == 1
    assert site.hub.statuses()[0].refused == 0


def test_a_new_body_goes_packed_the_same_bytes_to_every_node() -> None:
    site = Site((*STANDARD_RULES, Rule(CONFIG_MAPS, By.ALL_NODES)))
    wires = [site.streaming("n1"), site.streaming("n2")]
    for wire in wires:
        wire.take()
    item = site.put(CONFIG_MAPS, "web", data={"text": "word " * 500})
    site.work()
    for wire in wires:
        [push] = wire.take()
        assert isinstance(push, Push)
        [delta] = push.deltas
        assert (delta.version, delta.base, delta.size) == (item.version, "", len(item.body))
        assert unpack(delta.body, delta.size) == item.body
        assert len(delta.body) < len(item.body) / 10
    assert site.hub.counters.packed == 2


def test_a_body_that_could_not_be_unpacked_goes_as_it_is() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    item = site.put(PODS, "web", spec={"nodeName": "n1", "blob": "x" * 2000})
    site.work()
    [push] = wire.take()
    assert isinstance(push, Push)
    assert push.deltas[0].size == len(item.body)
    wire.say(Nack(2, (Refusal(item.key, "cannot be unpacked", whole=True),)))
    wire.say(Ack(2))
    site.work()
    [push] = wire.take()
    assert isinstance(push, Push)
    assert push.deltas == (Delta(item.key, item.version, item.body),)
    assert site.hub.counters.healed == 1


def test_a_push_is_bounded_as_it_travels_and_as_it_unpacks() -> None:
    site = Site()
    rng = random.Random(1)
    pods = [site.put(PODS, f"p{n}", **deployed_pod(n, "n1", rng)) for n in range(300)]
    maps = [site.put(CONFIG_MAPS, f"c{n}", data={"text": "x" * 100_000}) for n in range(100)]
    for item in maps:
        site.put(PODS, f"of-{item.key.name}", spec={"nodeName": "n1", "volumes": [volume(item.key.name)]})
    for item in pods:
        site.hub._wires.of(item, None)  # as another node had it: what is packed already takes no time of a turn
    wire = site.streaming("n1")
    pushes: list[Push] = []
    while frames := wire.take():
        pushes += [frame for frame in frames if isinstance(frame, Push)]
        wire.say(Ack(pushes[-1].seq))
        site.work()
    assert max(len(encode(push)) for push in pushes) <= FRAME_BYTES
    assert max(sum(delta.whole_size for delta in push.deltas) for push in pushes) <= UNPACKING * FRAME_BYTES
    assert sum(len(push.deltas) for push in pushes) == len(pods) + 2 * len(maps)
    # The budget is that of what travels: 64 KiB would hold 14 of these pods as they are.
    known = {item.key for item in pods}
    assert max(sum(delta.key in known for delta in push.deltas) for push in pushes) > 50


LARGE = "".join(map(chr, random.Random(5).choices(range(33, 1000), k=60_000)))
"""Text that hardly packs: on its way it is longer than a push may be."""


class Node1:
    """A node that takes what it is sent, in parts or whole."""

    def __init__(self, site: Site) -> None:
        self.site, self.wire, self.parts, self.whole = site, site.streaming("n1"), 0, dict[int, bytes]()
        self.pushed: list[Push] = []
        self.acks_upto()

    def acks_upto(self, chunks: int = 1 << 30) -> None:
        """Go on until nothing comes any more, but for Taken of no more chunks than that."""
        self._take(chunks)
        while frames := self.wire.take():
            for frame in frames:
                if isinstance(frame, Part):
                    self.parts += 1
                    self.whole[frame.number] = self.whole.get(frame.number, b"") + frame.body
                elif isinstance(frame, Push):
                    self.pushed.append(frame)
                    self.wire.say(Ack(frame.seq))
            self._take(chunks)

    def _take(self, chunks: int) -> None:
        if taken := min(self.parts, chunks):
            self.wire.say(Taken(taken))
        self.site.work()

    def told(self) -> list[tuple[str, int, bool]]:
        """Of the pushes since the last call: the names in them, the transfer, and whether it said synced."""
        told = [("".join(names(push)), push.transfer, push.synced) for push in self.pushed]
        self.pushed.clear()
        return told


def test_a_large_body_goes_in_parts_and_what_is_small_passes_it() -> None:
    site = Site()
    node = Node1(site)
    assert node.told() == [("", 0, True)]
    large = site.put(PODS, "large", spec={"nodeName": "n1", "text": LARGE})
    site.work()
    node.acks_upto(1)
    assert node.told() == []
    site.put(PODS, "small", spec={"nodeName": "n1"})
    site.work()
    node.acks_upto(1)
    assert node.told() == [("+small", 0, False)], "it has passed, and the node has not everything"
    node.acks_upto()
    assert node.told() == [("", 1, True)]
    assert decode_delta(node.whole[1]).version == large.version
    assert node.parts == -(-len(node.whole[1]) // CHUNK_BYTES)


def test_an_object_that_changes_all_the_time_arrives_all_the_same() -> None:
    site = Site()
    node = Node1(site)
    node.told()
    first = last = site.put(PODS, "large", spec={"nodeName": "n1", "text": LARGE})
    for number in range(40):
        site.work()
        node.acks_upto(number)
        last = site.put(PODS, "large", spec={"nodeName": "n1", "text": f"{LARGE}{number}"})
    node.acks_upto()
    assert decode_delta(node.whole[1]).version == first.version
    told = node.told()
    assert told[0] == ("", 1, False)
    assert told[-1] == ("+large", 0, True), "what has changed since is a small difference"
    assert site.hub.desired_by(Node("n1"))[last.key] == last.version
    assert len(node.whole) == 1


def test_what_has_come_whole_is_pushed_while_devices_take_all_the_room_they_get() -> None:
    site, rnd = Site(), random.Random(3)
    wire = site.streaming("n1")
    wire.say(Ack(1))
    wire.take()
    device, pod = ({"nodeName": "n1", "text": LARGE[-30_000:] + end} for end in "dp")
    noise = "".join(rnd.choices("abcdefghijklmnop", k=10_000))

    def flood(changes: int) -> None:
        for _ in range(changes):
            start = rnd.randrange(9_000)
            text = noise[start : start + 600]
            site.put(DEVICES, f"device{rnd.randrange(500)}", spec={"nodeName": "n1", "text": text})

    flood(1000)
    site.put(DEVICES, "large", spec=device)
    site.work()
    site.put(PODS, "large", spec=pod)
    unacked, taken, landed = list[int](), 0, list[int]()
    for _ in range(60):
        site.work()
        for frame in wire.take():
            if isinstance(frame, Part):
                wire.say(Taken(taken := taken + 1))
            elif isinstance(frame, Push):
                unacked.append(frame.seq)
                landed += [frame.transfer] * bool(frame.transfer)
        flood(80)
        if unacked:
            wire.say(Ack(unacked.pop(0)))
    assert sorted(landed) == [1, 2]


def test_a_large_object_begins_in_its_turn_though_smaller_ones_would_find_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "MAX_TRANSFERS_BYTES", 120_000)
    site = Site()
    wire = site.streaming("n1")
    wire.say(Ack(1))
    for name, length in (("a", 30_000), ("largest", 60_000), ("b", 30_000)):
        site.put(PODS, name, spec={"nodeName": "n1", "text": LARGE[-length:]})
        site.work()
    sizes, taken, pushes = dict[int, int](), 0, list[Push]()
    while len(sizes) < 3:
        frames = wire.take()
        for part in (frame for frame in frames if isinstance(frame, Part)):
            sizes[part.number] = part.size
            wire.say(Taken(taken := taken + 1))
        pushes += (frame for frame in frames if isinstance(frame, Push))
        if not frames:
            wire.say(Ack(pushes[-1].seq))  # nothing more begins before: there is no room for what is next
        site.work()
    assert sizes[2] > sizes[1] > 32_768
    assert sizes[2] + sizes[3] > 120_000


@pytest.mark.parametrize("becomes", ["deleted", "small", "another"])
def test_a_transfer_that_is_of_no_use_any_more_is_dropped(becomes: str) -> None:
    site = Site()
    node = Node1(site)
    node.told()
    large = site.put(PODS, "large", spec={"nodeName": "n1", "text": LARGE})
    site.work()
    node.acks_upto(1)
    again = project(from_json(PODS, {**large.parse(), "metadata": {**large.parse()["metadata"], "uid": "another"}}))
    if becomes == "small":
        site.put(PODS, "large", spec={"nodeName": "n1"})
    else:
        site.delete(large)
    if becomes == "another":
        site.hub.changed(site.cache.apply(WatchEvent(EventType.ADDED, again, "3")))
    site.work()
    node.acks_upto()
    told = node.told()
    if becomes == "another":
        assert told == [("", 2, True)]
        assert decode_delta(node.whole[2]).version == again.version
    else:
        assert told == ([("+large", 0, True)] if becomes == "small" else []), "of what was deleted it never heard"


def test_a_transfer_is_lost_with_its_link_and_begun_anew() -> None:
    site = Site()
    node = Node1(site)
    node.told()
    site.put(PODS, "large", spec={"nodeName": "n1", "text": LARGE})
    site.work()
    node.acks_upto(1)
    node.wire.pump.connection_lost("cut")
    node = Node1(site)
    node.acks_upto()
    assert [told[1:] for told in node.told()][-1] == (1, True)


def test_answers_and_transfers_go_in_turn() -> None:
    site = Site()
    node = Node1(site)
    site.put(PODS, "large", spec={"nodeName": "n1", "text": LARGE})
    site.work()
    [session] = site.hub._sessions.values()
    node.wire.take()
    node.wire.say(Call(1, GET, b"", True))
    session.answer(1, AnswerHead(200), b"x" * 3 * CHUNK_BYTES)
    order = []
    for taken in range(1, 8):
        node.wire.say(Taken(taken))
        order += [type(frame).__name__ for frame in node.wire.take() if isinstance(frame, Part | Answer)]
    assert order[:4] == ["Answer", "Part", "Answer", "Part"]


def test_devices_have_a_window_of_their_own() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.say(Ack(1))
    wire.take()
    for number in range(400):
        noise = "".join(random.Random(number).choices("abcdefghijklmnop", k=900))
        site.put(DEVICES, f"d{number}", spec={"nodeName": "n1", "note": noise})
    site.work()
    devices = wire.take()
    under_way = sum(len(encode(frame)) for frame in devices)
    assert DEVICE_WINDOW_BYTES // 2 < under_way < DEVICE_WINDOW_BYTES + DEVICE_FRAME_BYTES
    site.put(PODS, "pod", spec={"nodeName": "n1"})
    site.work()
    assert [names(frame) for frame in wire.take()] == [["+pod"]], "at once, though devices fill theirs"
    pods = [site.put(PODS, f"p{number}", spec={"nodeName": "n1", "x": number}) for number in range(100)]
    for _ in range(100):
        site.put(PODS, "pod", spec={"nodeName": "n1", "x": LARGE[:20_000]})
        site.work()
    wire.take()
    wire.say(Ack(3))
    site.work()
    assert any("+d" in name for frame in wire.take() for name in names(frame)), "nor do devices starve"
    assert pods


def test_a_node_that_reports_more_than_its_share_is_acknowledged_later() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    entries = (ReportEntry(ObjectKey(DEVICES, "default", "d"), "state", b""),) * MAX_REPORT_ENTRIES
    acks = 0
    [session] = site.hub._sessions.values()
    for number in range(80):  # as fast as they are acknowledged, which is at once as far as the sink goes
        wire.say(Report(1 + number * MAX_REPORT_ENTRIES, entries, Traffic.DEVICES))
        report = site.reports.accepted.pop()[2]
        site.hub.reported(session, ReportAck(Traffic.DEVICES, (Span(report.first, report.first + len(entries) - 1),)))
        while not (heard := len(wire.take())):
            site.clock.run_for(0.01)
        acks += heard
    assert acks == 80
    took_s = site.clock.time()
    assert took_s == pytest.approx((80 * MAX_REPORT_ENTRIES - REPORTS_BURST) / REPORTS_PER_S, abs=0.1)
    wire.say(Report(1 + 80 * MAX_REPORT_ENTRIES, entries, Traffic.DEVICES))
    site.hub.reported(
        session, ReportAck(Traffic.DEVICES, (Span(1 + 80 * MAX_REPORT_ENTRIES, 81 * MAX_REPORT_ENTRIES),))
    )
    wire.pump.connection_lost("cut")
    site.clock.run_for(9.0)
    assert wire.take() == [], "nobody is there to be told"


def test_a_node_that_reports_more_bytes_than_its_share_is_acknowledged_later() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    [session] = site.hub._sessions.values()
    size = 120_000
    for number in range(1, 21):
        wire.say(
            Report(number, (ReportEntry(ObjectKey(DEVICES, "default", "d"), "state", b"x" * size),), Traffic.DEVICES)
        )
        site.hub.reported(session, ReportAck(Traffic.DEVICES, (Span(number, number),)))
        while not wire.take():
            site.clock.run_for(0.01)
    burst_s = REPORTS_BURST / REPORTS_PER_S
    assert site.clock.time() == pytest.approx(20 * size / REPORT_BYTES_PER_S - burst_s, abs=0.1)


def test_an_object_that_changes_faster_than_it_is_packed_is_sent_as_it_was() -> None:
    site = Site()
    waiting: list[tuple[Callable[[], Parts], Callable[[Parts], None]]] = []
    site.hub._wires._aside = lambda work, done: waiting.append((work, done))
    node = Node1(site)
    node.told()
    text = LARGE + "x" * ASIDE_BYTES
    first = site.put(PODS, "long", spec={"nodeName": "n1", "text": text})
    for number in range(7):
        site.work()
        site.put(PODS, "long", spec={"nodeName": "n1", "text": f"{text}{number}"})
        if number == 3:
            work, done = waiting.pop(0)
            done(work())
        node.acks_upto()
    assert decode_delta(node.whole[1]).version == first.version
    assert node.told()[0] == ("", 1, False)
    while waiting:
        work, done = waiting.pop(0)
        done(work())
        node.acks_upto()
    assert node.told()[-1] == ("+long", 0, True), "the rest as a difference"


def test_what_changes_faster_than_it_is_packed_is_sent_as_it_was_also_where_the_difference_is_small() -> None:
    site = Site()
    node = Node1(site)
    text = LARGE + "x" * ASIDE_BYTES
    site.put(PODS, "long", spec={"nodeName": "n1", "text": text})
    node.acks_upto()
    node.told()
    waiting: list[tuple[Callable[[], Parts], Callable[[Parts], None]]] = []
    site.hub._wires._aside = lambda work, done: waiting.append((work, done))
    for number in range(7):
        site.put(PODS, "long", spec={"nodeName": "n1", "text": f"{text}{number}"})
        site.work()
        site.put(PODS, "long", spec={"nodeName": "n1", "text": f"{text}{number} and more"})
        work, done = waiting.pop(0)
        done(work())
        node.acks_upto()
    assert [transfer > 1 for _, transfer, _ in node.told()] == [True] * 7


def test_one_nodes_large_objects_are_packed_in_turn_with_the_others() -> None:
    site = Site()
    waiting: list[tuple[Callable[[], Parts], Callable[[Parts], None]]] = []
    busy, calm = site.streaming("busy"), site.streaming("calm")
    for wire in (busy, calm):
        wire.say(Ack(1))
        wire.take()
    site.hub._wires._aside = lambda work, done: waiting.append((work, done))
    text = "x" * ASIDE_BYTES
    for number in range(50):
        site.put(PODS, f"p{number}", spec={"nodeName": "busy", "text": text})
    site.work()
    site.put(PODS, "one", spec={"nodeName": "calm", "text": text})
    site.work()
    for _ in range(2):
        assert calm.take() == []
        [(work, done)] = waiting
        waiting.clear()
        done(work())
        site.work()
    assert [names(frame) for frame in calm.take()] == [["+one"]]
    assert [names(frame) for frame in busy.take()] == [["+p0"]]
    while waiting:
        work, done = waiting.pop()
        done(work())
        site.work()
        busy.say(Ack(site.hub._outboxes[Node("busy")].sent_seq))
    assert sum(len(names(frame)) for frame in busy.take()) == 49
    busy.pump.connection_lost("cut")
    site.put(PODS, "p0", spec={"nodeName": "busy", "text": f"{text}y"})
    site.work()
    assert not waiting, "nobody is there to have it"


def test_what_was_deleted_while_it_was_packed_is_not_kept() -> None:
    site = Site()
    waiting: list[tuple[Callable[[], Parts], Callable[[Parts], None]]] = []
    site.hub._wires._aside = lambda work, done: waiting.append((work, done))
    node = Node1(site)
    node.told()
    spec = {"nodeName": "n1", "text": LARGE + "x" * ASIDE_BYTES}
    pod = site.put(PODS, "long", spec=spec)
    site.work()
    site.delete(pod)
    again = project(from_json(PODS, {"metadata": {"name": "long", "namespace": "default", "uid": "2"}, "spec": spec}))
    site.hub.changed(site.cache.apply(WatchEvent(EventType.ADDED, again, "3")))
    site.work()
    work, done = waiting.pop(0)
    assert not waiting, "one at a time"
    done(work())
    node.acks_upto()
    assert (node.parts, len(site.hub._wires)) == (0, 0)
    work, done = waiting.pop(0)
    done(work())
    node.acks_upto()
    assert decode_delta(node.whole[1]).version == again.version


def test_a_session_that_has_much_to_send_does_so_a_frame_in_a_turn() -> None:
    site = Site()
    busy, calm = site.streaming("busy"), site.streaming("calm")
    for wire in (busy, calm):
        wire.say(Ack(1))
        wire.take()
    for number in range(10):
        noise = "".join(random.Random(number).choices("abcdefghijklmnop", k=30_000))
        site.put(CONFIG_MAPS, f"c{number}", text=noise)
        site.put(PODS, f"p{number}", spec={"nodeName": "busy", "volumes": [volume(f"c{number}")]})
    site.put(PODS, "one", spec={"nodeName": "calm"})
    assert site.hub.work(2)
    assert len(busy.take()) == 1
    assert [names(frame) for frame in calm.take()] == [["+one"]]
    site.work()
    assert len(busy.take()) > 1


def volume(name: str) -> dict[str, Any]:
    return {"name": "v", "configMap": {"name": name}}


def test_a_turn_ends_when_much_was_packed_in_it_and_goes_on_in_another() -> None:
    site = Site()
    specs = [{"nodeName": "n1", "text": LARGE[-25_000:] + str(number)} for number in range(12)]
    bodies = [site.put(PODS, f"p{number}", spec=spec).body for number, spec in enumerate(specs)]
    wire = site.connect("n1")
    wire.say(hello("n1"))
    packed, is_more = [0], True
    while is_more:
        is_more = site.hub.work(1)
        packed.append(site.hub._wires.prepared)
    longest = max(map(len, bodies))
    assert packed[-1] > 12 * 40_000
    assert max(after - before for before, after in itertools.pairwise(packed)) < PREPARED_BYTES + longest
    taken, landed = 0, 0
    while landed < 12:
        site.work()
        for frame in wire.take():
            if isinstance(frame, Part):
                wire.say(Taken(taken := taken + 1))
            elif isinstance(frame, Push):
                wire.say(Ack(frame.seq))
                landed += bool(frame.transfer)
    assert site.hub.statuses()[0].dirty == 0


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

ALL, NAMED = Interest(POLICIES), Interest(POLICIES, "default", "b", "system:serviceaccount:default:op")
MAY = Decision(GRANTED, resource=POLICIES)
MAY_NOT = Decision(403, "no")


def interested(site: Site, *interests: Interest, held: Sequence[Object] = (), cursor: Cursor | None = None) -> Wire:
    """A node that has said Hello."""
    wire = site.connect("n1")
    wire.say(hello("n1", held, cursor)._replace(interests=interests))
    site.work()
    return wire


def kinds(wire: Wire) -> list[str]:
    """What was said, a Push by what is in it."""
    told = []
    for frame in wire.take():
        name = type(frame).__name__
        told.append(" ".join(names(frame)) + ("!" if frame.synced else "") if isinstance(frame, Push) else name)
    return told


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


def test_a_node_that_leaves_while_it_waits_wants_nothing_any_more() -> None:
    site = Site()
    wire = interested(site, ALL)
    wire.pump.connection_lost("cut")
    assert site.rights.wanted[Node("n1")] == ()


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


# ---- calls

GET = CallHead("GET", "/version")


def test_a_call_is_handed_over_whole_and_its_answer_goes_back_as_it_is_taken() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.take()
    wire.say(Call(1, GET, b"a", False))
    wire.say(Call(1, None, b"b", True))
    assert site.desk.calls == [Whole(1, GET, b"ab")]
    assert wire.take() == [Taken(1), Taken(2)]
    [session] = site.hub._sessions.values()
    session.answer(1, AnswerHead(200), b"x" * (3 * CHUNK_BYTES))
    sent = wire.take()
    assert sent == [
        Answer(1, AnswerHead(200), b"x" * CHUNK_BYTES, False),
        Answer(1, None, b"x" * CHUNK_BYTES, False),
    ]
    assert session.call_bytes == 3 * CHUNK_BYTES
    site.put(PODS, "urgent", spec={"nodeName": "n1"})
    site.work()
    assert kinds(wire) == ["+urgent!"], "a push does not wait for the rest"
    wire.say(Taken(1))
    assert wire.take() == [Answer(1, None, b"x" * CHUNK_BYTES, True)]
    assert session.call_bytes == 0
    session.answer(1, AnswerHead(200), b"")
    assert wire.take() == [], "nobody asked twice"


def test_a_call_that_is_cancelled_is_given_up() -> None:
    site = Site()
    wire = site.streaming("n1")
    wire.say(Call(1, GET, b"", True))
    wire.say(Call(2, GET, b"", False))
    wire.take()
    wire.say(Cancel(1))
    wire.say(Cancel(2))
    wire.say(Call(2, None, b"", True))
    [session] = site.hub._sessions.values()
    session.answer(1, AnswerHead(200), b"")
    assert wire.take() == [Taken(3)]
    assert site.desk.cancelled == [1, 2]
    assert [call.number for call in site.desk.calls] == [1]


def test_a_call_there_is_no_room_for_is_refused_and_the_link_goes_on() -> None:
    site = Site()
    wire = site.streaming("n1")
    site.desk.is_full = True
    wire.take()
    wire.say(Call(1, GET, b"", False))
    wire.say(Call(1, None, b"", True))
    assert wire.take() == [Taken(1), Answer(1, AnswerHead(429), b"", True), Taken(2)]
    assert site.hub.counters.calls_refused == 1
    assert not wire.closed


@pytest.mark.parametrize("numbers", [[1, 1], range(MAX_CALLS + 1)])
def test_a_node_that_calls_out_of_turn_is_left(numbers: Sequence[int]) -> None:
    site = Site()
    wire = site.streaming("n1")
    for number in numbers:
        wire.say(Call(number, GET, b"", True))
    assert wire.closed
    assert len(site.desk.closed) == 1


SPOKEN = st.one_of(
    st.builds(Wanted, st.integers(1, 4), st.just((ALL, NAMED)) | st.just(())),
    st.builds(Call, st.integers(0, 3), st.none() | st.just(GET), st.binary(max_size=3), st.booleans()),
    st.builds(Cancel, st.integers(0, 3)),
    st.builds(Taken, st.integers(0, 3)),
    st.builds(Ack, st.integers(0, 3)),
    st.builds(Check, st.integers(0, 3), st.just(b"x")),
)


@given(st.lists(SPOKEN, max_size=12), st.booleans())
def test_whatever_a_node_says_of_interests_and_calls_its_link_goes_on_or_ends(said: list[Frame], is_full: bool) -> None:
    site = Site()
    site.put(POLICIES, "a")
    site.rights.decisions |= {ALL: MAY, NAMED: MAY_NOT}
    site.desk.is_full = is_full
    wire = site.streaming("n1")
    for frame in said:
        if not wire.closed:
            wire.say(frame)
        site.work()
        for session in site.hub._sessions.values():
            session.answer(1, AnswerHead(200), b"answer")
    told = wire.take()
    assert wire.closed == (not site.hub.is_connected(Node("n1"))) == any(isinstance(each, Goodbye) for each in told)
    wire.pump.connection_lost("over")
    site.clock.run_until(100.0)
    site.hub.expire()
    assert not site.hub._standings


def test_a_node_that_wants_something_else_all_the_time_is_cut_off() -> None:
    site = Site()
    wire = site.streaming("n1")
    large = tuple(Interest(CONFIG_MAPS, f"ns-{number}") for number in range(160))
    sets = [large] * 50 + [()] * ((sessions.WANTED_BURST - 50 * 20) // 4)
    for number, interests in enumerate(sets, 1):
        wire.say(Wanted(number, interests))
    assert not wire.closed
    site.clock.run_until(site.clock.time() + 4 / sessions.WANTED_PER_S)
    wire.say(Wanted(len(sets) + 1, ()))
    assert not wire.closed, "it comes back with time"
    wire.say(Wanted(len(sets) + 2, ()))
    assert isinstance(goodbye := wire.take()[-1], Goodbye)
    assert (goodbye.code, goodbye.reason) == (GoodbyeCode.PROTOCOL, "interests that change all the time")


def test_as_many_objects_of_usual_names_as_an_inventory_may_have_fit_into_its_bytes() -> None:
    name, version = "web-frontend-7d9f8c6b5-abcde", ObjectVersion(str(uuid.UUID(int=7)), "0123456789abcdef01234567")
    held = [Held(ObjectKey(PODS, "team-logistics-prod", f"{name}-{number}"), version) for number in range(1000, 1064)]
    assert (
        len(encode(Inventory(tuple(held), True))) / len(held) * sessions.MAX_INVENTORY <= sessions.MAX_INVENTORY_BYTES
    )


def test_an_inventory_of_the_longest_names_is_bounded_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_INVENTORY_BYTES", 3000)
    site = Site()
    wire = site.connect("n1")
    wire.say(Hello(PROTOCOL, "n1", None, b"something", "agent", 1))
    held = [Held(ObjectKey(PODS, "n" * 253, f"{number:0>253}"), ObjectVersion("u" * 253, "r")) for number in range(4)]
    wire.say(Inventory(tuple(held[:3]), False))
    assert [type(frame) for frame in wire.take()] == [Welcome]
    wire.say(Inventory(tuple(held[3:]), True))
    assert wire.closed
    assert isinstance(goodbye := wire.take()[-1], Goodbye)
    assert goodbye.reason == "an inventory of more than 3000 bytes"


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


def test_a_node_that_refuses_everything_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    wire = site.connect("n1")
    wire.say(Hello(PROTOCOL, "n1", None, digest(()), "agent", 1))
    site.put(CONFIG_MAPS, "a", data={})
    site.put(PODS, "web", spec={"nodeName": "n1", "volumes": [{"configMap": {"name": "a"}}]})
    site.work()
    key = ObjectKey(CONFIG_MAPS, "default", "a")
    for _ in range(3):
        wire.say(Nack(1, tuple(Refusal(key, "no") for _ in range(MAX_REFUSALS_TOLD))))
    assert len([each for each in caplog.records if each.message == "node refused object"]) == MAX_REFUSALS_TOLD
    assert site.hub.counters.nacks == 3 * MAX_REFUSALS_TOLD


def test_a_node_that_compares_all_the_time_is_not_always_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    def counted(items: Iterable[tuple[ObjectKey, ObjectVersion]]) -> bytes:
        nonlocal looked
        looked += 1
        return digest(items)

    site = Site()
    wire = site.streaming("n1")
    wire.say(Ack(1))
    monkeypatch.setattr(sessions, "digest", counted)
    for _ in range(sessions.CHECKS_BURST + 30):
        wire.say(Check(1, digest([])))
    assert looked == sessions.CHECKS_BURST
    site.clock.run_until(site.clock.time() + 2 / sessions.CHECKS_PER_S)
    wire.say(Check(1, digest([])))
    assert looked == sessions.CHECKS_BURST + 1
    assert not wire.closed
