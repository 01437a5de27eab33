"""
A hub on a hand-fed cache, and the ends of its links: what tests of its rooms say to it, and what it says to nodes.
"""

import itertools
import random
from collections.abc import Sequence
from typing import Any

from apimachinery.events import EventType, WatchEvent
from apimachinery.inventory import digest
from apimachinery.keys import Node, Resource
from apimachinery.objects import Object, from_json
from apimachinery.watchcache import WatchCache
from cloudhub.interests import GRANTED, UNKNOWN, Decision
from cloudhub.lobby import Denial
from cloudhub.placement import STANDARD_RULES, Placement, Rule
from cloudhub.projection import project
from cloudhub.session import PART_S, Session
from cloudhub.sessions import Hub
from link.codec import decode, encode
from link.exchange import Whole
from link.frames import (
    PROTOCOL,
    Ack,
    AnswerHead,
    CallHead,
    Cursor,
    Frame,
    Hello,
    Interest,
    Part,
    Push,
    Report,
    Taken,
)
from link.pump import Pump
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


LARGE = "".join(map(chr, random.Random(5).choices(range(33, 1000), k=60_000)))


class Node1:
    """A node that takes what it is sent, in parts or whole."""

    def __init__(self, site: Site) -> None:
        self.site, self.wire, self.parts, self.whole = site, site.streaming("n1"), 0, dict[int, bytes]()
        self.pushed: list[Push] = []
        self.acks_upto()

    def acks_upto(self, chunks: int = 1 << 30) -> None:
        """Go on until nothing comes any more, nor after a part's rest, but for Taken of no more chunks than that."""
        self._take(chunks)
        while frames := self.wire.take() or self._rested():
            for frame in frames:
                if isinstance(frame, Part):
                    self.parts += 1
                    self.whole[frame.number] = self.whole.get(frame.number, b"") + frame.body
                elif isinstance(frame, Push):
                    self.pushed.append(frame)
                    self.wire.say(Ack(frame.seq))
            self._take(chunks)

    def _rested(self) -> list[Frame]:
        self.site.clock.run_for(PART_S)
        return self.wire.take()

    def _take(self, chunks: int) -> None:
        if taken := min(self.parts, chunks):
            self.wire.say(Taken(taken))
        self.site.work()

    def told(self) -> list[tuple[str, int, bool]]:
        """Of the pushes since the last call: the names in them, the transfer, and whether it said synced."""
        told = [("".join(names(push)), push.transfer, push.synced) for push in self.pushed]
        self.pushed.clear()
        return told


def volume(name: str) -> dict[str, Any]:
    return {"name": "v", "configMap": {"name": name}}


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
