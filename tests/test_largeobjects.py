"""What is too large for a push goes in parts, once it is packed, and is pushed as it was begun."""

import random
from collections.abc import Callable

import pytest

from apimachinery.events import EventType, WatchEvent
from apimachinery.keys import Node
from apimachinery.objects import from_json
from apimachinery.resources import DEVICES, PODS
from cloudhub import transfers
from cloudhub.projection import project
from cloudhub.wires import ASIDE_BYTES, Parts
from link.frames import (
    CHUNK_BYTES,
    Ack,
    Part,
    Push,
    Taken,
)
from link.pushcodec import decode_delta
from tests.harness.hubsite import LARGE, Node1, Site, names


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
