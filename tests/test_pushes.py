"""A turn: a frame of each class, of bounded size, in the fewest bytes."""

import itertools
import random

from apimachinery.resources import CONFIG_MAPS, DEVICES, PODS
from cloudhub.horizon import Advance
from cloudhub.placement import STANDARD_RULES, By, Rule
from cloudhub.pushes import DEVICE_FRAME_BYTES, FRAME_BYTES, PREPARED_BYTES
from cloudhub.wires import UNPACKING
from link.codec import encode
from link.frames import (
    DEVICE_WINDOW_BYTES,
    Ack,
    Delta,
    Nack,
    Part,
    Position,
    Push,
    Refusal,
    Taken,
)
from link.packing import unpack
from tests.harness.hubsite import (
    LARGE,
    Site,
    hello,
    names,
    volume,
)
from tests.harness.pods import deployed_pod


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
