"""What goes to a node makes of what it holds what it should hold; and made once is as good as made anew."""

import base64
import random
from collections.abc import Callable
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object, canonical, revision_of
from apimachinery.resources import CONFIG_MAPS, PODS
from cloudhub.outbox import DOUBTFUL
from cloudhub.patches import Patches
from cloudhub.wires import ASIDE_BYTES, KEY_BYTES, UNPACKING, Parts, Wires, removal
from link.pushcodec import decode_delta
from metamanager.intake import unfold

KEY = ObjectKey(CONFIG_MAPS, "default", "c")


def state(seed: int, size: int, uid: str = "u") -> Object:
    rng = random.Random(1)
    data = {"fixed": f"{rng.getrandbits(8 * size):x}", "changing": str(seed)}
    body = canonical({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "uid": uid}, "data": data})
    return Object(KEY, ObjectVersion(uid, revision_of(body)), {}, body)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([10, 400, 4000]), st.sampled_from("uv")), min_size=1),
    st.lists(st.integers(0, 20)),
)
def test_whatever_a_node_holds_the_wire_makes_the_present_of_it(
    history: list[tuple[int, int, str]], places: list[int]
) -> None:
    wires = Wires(Patches())
    states = [state(*each) for each in history]
    for before, after in pairwise(states):
        if before != after:
            wires.replaced(before)
    now = states[-1]
    held: list[Object | None] = [None, *(states[place % len(states)] for place in places)]
    for each in held:
        wire = wires.of(now, each.version if each else None)
        assert wires.of(now, each.version if each else None) is wire
        delta = decode_delta(wire.data)
        assert unfold(delta, each).body == now.body
        assert len(delta.body) == wire.body_bytes
        assert wire.cost == max(KEY_BYTES + len(delta.body), delta.whole_size // UNPACKING)
        assert (bool(delta.base), bool(delta.size and not delta.base)) == (wire.is_patch, wire.is_packed)


def test_one_change_of_a_large_object_is_small_and_a_doubtful_one_goes_as_it_is() -> None:
    wires = Wires(Patches())
    old, new = state(1, 4000), state(2, 4000)
    wires.replaced(old)
    assert wires.of(new, old.version).is_patch
    assert len(wires.of(new, old.version).data) < 300
    assert wires.of(new, None).is_packed
    whole = wires.of(new, DOUBTFUL)
    assert (whole.is_patch, whole.is_packed, whole.body_bytes) == (False, False, len(new.body))
    other = Wires(Patches())
    assert other.of(new, DOUBTFUL) == whole
    assert other.prepared == 0, "nothing is packed for what goes as it is"


def test_a_new_version_takes_the_place_of_the_one_before() -> None:
    wires = Wires(Patches())
    first, second = state(1, 400), state(2, 400)
    assert decode_delta(wires.of(first, None).data).version == first.version
    assert decode_delta(wires.of(second, None).data).version == second.version
    assert decode_delta(wires.of(first, None).data).version == first.version


def test_what_is_kept_is_bounded() -> None:
    wires = Wires(Patches(), max_bytes=20_000)
    for number in range(100):
        item = state(number, 4000)
        wires.of(item._replace(key=KEY._replace(name=f"c{number}")), None)
        assert len(wires) <= 20_000


def test_of_what_was_replaced_or_deleted_nothing_is_kept() -> None:
    wires = Wires(Patches())
    first, second = state(1, 4000), state(2, 4000)
    wires.of(first, None)
    wires.replaced(first)
    assert len(wires) == 0
    assert wires.of(second, first.version).is_patch
    wires.deleted(KEY)
    assert len(wires) == 0
    assert not wires.of(second, first.version).is_patch


def test_one_object_held_in_many_versions_is_bounded_too() -> None:
    wires, item = Wires(Patches(), max_bytes=20_000), state(1, 4000)
    for number in range(100):
        wires.of(item, ObjectVersion("u", f"r{number}"))
        assert len(wires) <= 20_000


def test_a_removal_says_so() -> None:
    assert decode_delta(removal(KEY).data).version is None


A, B = Node("a"), Node("b")


class Bench:
    """Where what takes long is made, when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Parts], Callable[[Parts], None]]] = []
        self.made: list[ObjectKey] = []
        self.parts: list[Parts] = []
        self.gone: set[Node] = set()
        self.wires = Wires(
            Patches(),
            aside=lambda work, done: self.waiting.append((work, done)),
            made=self.made.append,
            awaits=lambda node, _key, _held: node not in self.gone,
        )

    def ask(self, node: Node, item: Object, held: ObjectVersion | None = None) -> None:
        assert self.wires.of(item, held).is_awaited
        self.wires.ask(node, item, held)

    def make(self) -> None:
        """One that waits."""
        [(work, done)] = self.waiting
        self.waiting.clear()
        self.parts.append(work())
        done(self.parts[-1])


def long_object(number: int, name: str = "long") -> Object:
    body = canonical({"text": "x" * ASIDE_BYTES, "number": number})
    return Object(ObjectKey(PODS, "default", name), ObjectVersion("u", revision_of(body)), {}, body)


def test_what_takes_long_is_made_somewhere_else_once_for_all() -> None:
    bench, item = Bench(), long_object(1)
    for _ in range(3):
        wire = bench.wires.of(item, None)
        assert (wire.is_awaited, wire.is_large) == (True, True)
    assert not bench.waiting, "nobody has asked for it"
    for node in (A, B, A):
        bench.ask(node, item)
    assert bench.wires.awaited(item.key, None) == item.version
    bench.make()
    assert not bench.waiting, "it was asked for three times and is made once"
    assert bench.made == [item.key]
    wire = bench.wires.of(item, None)
    assert wire == Wires(Patches()).of(item, None), "as it would have been made here"
    assert (wire.is_awaited, wire.is_large, wire.is_packed) == (False, False, True)
    assert bench.wires.of(item, DOUBTFUL).is_awaited is False, "nothing is to be packed"
    assert bench.wires.of(item, ObjectVersion("u", "?forgotten")).is_awaited is False, "nor what is packed already"


def test_while_one_state_is_made_no_other_is_and_it_stays_to_be_had() -> None:
    bench, first, last = Bench(), long_object(1), long_object(2)
    bench.ask(A, first)
    bench.ask(A, last)
    assert bench.wires.awaited(first.key, None) == first.version
    bench.make()
    assert not bench.waiting
    made = bench.wires.made(first.key, first.version, None)
    assert made is not None
    assert bench.wires.made(first.key, last.version, None) is None
    bench.ask(A, last)
    bench.make()
    assert not bench.wires.of(last, None).is_awaited
    bench.wires.replaced(first)
    bench.ask(A, last, first.version)
    bench.make()
    assert bench.wires.of(last, first.version).is_patch


def noisy_object(*seeds: int) -> Object:
    """300 KB of base64 of each."""
    text = {f"{place}": base64.b64encode(random.Random(seed).randbytes(225_000)) for place, seed in enumerate(seeds)}
    body = canonical({place: each.decode() for place, each in text.items()})
    return Object(KEY, ObjectVersion("u", revision_of(body)), {}, body)


def test_a_large_body_of_noise_is_packed_once_whatever_nodes_hold_of_it() -> None:
    bench, states = Bench(), [noisy_object(1, 2), noisy_object(3, 4), noisy_object(5, 6)]
    for before in states[:-1]:
        bench.wires.replaced(before)
    for held in (states[0].version, states[1].version):
        bench.ask(A, states[-1], held)
        bench.make()
        assert bench.wires.of(states[-1], held).is_packed
    assert not bench.wires.of(states[-1], None).is_awaited
    first, second = bench.parts
    assert (first.patch, second.patch) == (None, None), "a difference would be as large"
    assert first.whole.data is not None
    assert second.whole.data is first.whole.data


def test_a_body_of_which_half_is_new_noise_is_told_as_that_and_not_packed_besides() -> None:
    bench, old, new = Bench(), noisy_object(1, 2), noisy_object(1, 3)
    bench.wires.replaced(old)
    bench.ask(A, new, old.version)
    bench.make()
    assert not bench.parts[0].whole.is_known
    wire = bench.wires.of(new, old.version)
    assert wire.is_patch
    assert wire.body_bytes < 0.4 * len(new.body)
    assert unfold(decode_delta(wire.data), old).body == new.body


def test_of_two_nodes_the_one_with_a_single_large_object_waits_for_one_of_the_others() -> None:
    bench = Bench()
    for number in range(50):
        bench.ask(A, long_object(number, f"a{number}"))
    bench.ask(B, long_object(1, "b"))
    for _ in range(4):
        bench.make()
    assert [key.name for key in bench.made] == ["a0", "b", "a1", "a2"]


def test_an_object_waits_in_its_newest_state_and_not_for_who_has_gone() -> None:
    bench, other, states = Bench(), long_object(0, "other"), [long_object(number) for number in range(5)]
    bench.ask(A, other)
    for item in states:
        bench.ask(B, item)
    assert bench.wires.awaited(states[0].key, None) == states[-1].version
    bench.make()
    bench.make()
    assert bench.made == [other.key, states[0].key]
    assert not bench.wires.of(states[-1], None).is_awaited
    assert not bench.waiting
    bench.ask(A, long_object(1, "last"))
    bench.ask(B, long_object(2, "more"))
    bench.gone.add(B)
    bench.make()
    assert not bench.waiting, "nobody waits for it any more"


def test_what_was_deleted_while_it_waited_or_was_made_is_told_to_nobody() -> None:
    bench, made, waiting = Bench(), long_object(1, "made"), long_object(2, "waiting")
    bench.ask(A, made)
    bench.ask(A, waiting)
    bench.wires.deleted(made.key)
    bench.wires.deleted(waiting.key)
    bench.ask(A, made)
    bench.make()
    assert bench.made == [], "that was of the one before"
    bench.make()
    assert bench.made == [made.key]
    assert not bench.waiting
