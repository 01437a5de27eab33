"""One node's outbox, by scenario and by property."""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey, ObjectVersion, Resource
from apimachinery.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    DEVICE_MODELS,
    DEVICES,
    NODES,
    PODS,
    SECRETS,
)
from cloudhub.outbox import DOUBTFUL, Outbox, Rank, Verdict, rank_of
from link.frames import Cursor, Traffic

INFRASTRUCTURE, DEVICE_TRAFFIC = Traffic


def key(name: str, resource: Resource = CONFIG_MAPS) -> ObjectKey:
    return ObjectKey(resource, "default", name)


def version(number: int) -> ObjectVersion:
    return ObjectVersion("u", str(number))


class Hundred(NamedTuple):
    """What everything becomes on its way here."""

    cost: int = 100
    is_large: bool = False


class Wish(dict[ObjectKey, ObjectVersion]):
    """What the node should hold."""

    def pull(
        self, outbox: Outbox, budget: int = 1000, traffic: Traffic = INFRASTRUCTURE, large: str = ""
    ) -> dict[ObjectKey, ObjectVersion | None]:
        """large: the names of what is too large for a push."""
        return outbox.pull(self.get, lambda key, *_: Hundred(is_large=key.name in large), budget, traffic)[0]

    def change(self, outbox: Outbox, name: str, number: int) -> None:
        self[key(name)] = version(number)
        outbox.mark(key(name))


def adopted(wish: Wish) -> Outbox:
    outbox = Outbox("e")
    outbox.adopt(wish.items(), wish)
    return outbox


def test_nothing_is_pulled_before_it_is_known_what_the_node_holds() -> None:
    wish = Wish()
    outbox = Outbox("e")
    wish.change(outbox, "a", 1)
    assert wish.pull(outbox) == {}
    outbox.adopt([], wish)
    assert wish.pull(outbox) == {key("a"): version(1)}


def test_a_burst_of_changes_to_one_object_is_one_entry() -> None:
    wish = Wish()
    outbox = adopted(wish)
    for number in range(1000):
        wish.change(outbox, "a", number)
    assert outbox.dirty_count == 1
    assert wish.pull(outbox) == {key("a"): version(999)}


def test_a_change_undone_before_it_is_sent_is_no_change() -> None:
    wish = Wish({key("a"): version(1)})
    outbox = adopted(wish)
    wish.change(outbox, "a", 2)
    wish.change(outbox, "a", 1)
    assert wish.pull(outbox) == {}
    assert outbox.is_settled


def test_a_change_while_one_is_under_way_goes_out_again() -> None:
    wish = Wish()
    outbox = adopted(wish)
    wish.change(outbox, "a", 1)
    outbox.launch(1, wish.pull(outbox))
    wish.change(outbox, "a", 2)
    assert wish.pull(outbox) == {key("a"): version(2)}


def test_the_budget_bounds_a_pull_but_one_always_goes() -> None:
    wish = Wish()
    outbox = adopted(wish)
    for name in "abc":
        wish.change(outbox, name, 1)
    assert len(wish.pull(outbox, budget=250)) == 2
    assert len(wish.pull(outbox, budget=1)) == 1


def test_what_is_referred_to_goes_before_what_refers() -> None:
    wish = Wish()
    outbox = adopted(wish)
    resources = [DEVICES, DEVICE_MODELS, PODS, SECRETS, NODES, CUSTOM_RESOURCE_DEFINITIONS]
    for resource in resources:
        wish[key("x", resource)] = version(1)
        outbox.mark(key("x", resource))
    order = [pulled.resource.plural for traffic in Traffic for pulled in wish.pull(outbox, traffic=traffic)]
    assert order == ["nodes", "customresourcedefinitions", "secrets", "pods", "devicemodels", "devices"]
    assert rank_of(DEVICES) is Rank.DEVICES


def test_what_is_large_waits_beside_and_is_dirty_all_the_same() -> None:
    wish = Wish()
    outbox = adopted(wish)
    for name in "ab":
        wish.change(outbox, name, 1)
    assert wish.pull(outbox, large="a") == {key("b"): version(1)}
    assert (list(outbox.large), outbox.has_dirty, outbox.dirty_count) == ([key("a")], True, 1)
    assert outbox.may_land(key("a"), version(1), None, wish.get)
    assert not outbox.may_land(key("a"), version(1), version(0), wish.get), "what it was made of is not held"
    wish.change(outbox, "a", 2)
    assert outbox.may_land(key("a"), version(1), None, wish.get), "an older state goes first"
    assert wish.pull(outbox) == {key("a"): version(2)}, "it is small now"
    assert not outbox.may_land(key("a"), version(1), None, wish.get)
    assert not outbox.has_dirty


def test_what_is_large_is_looked_at_again_after_a_reconnect_and_forgotten_with_an_inventory() -> None:
    wish = Wish()
    outbox = adopted(wish)
    wish.change(outbox, "a", 1)
    assert wish.pull(outbox, large="a") == {}
    outbox.rewind(0)
    assert not outbox.large
    assert wish.pull(outbox, large="a") == {}
    outbox.adopt(wish.items(), wish)
    assert outbox.is_settled


def test_resume_settles_what_arrived_and_marks_what_was_lost() -> None:
    wish = Wish()
    outbox = adopted(wish)
    for seq, name in enumerate("abc", 1):
        wish.change(outbox, name, 1)
        outbox.launch(seq, wish.pull(outbox))
    landed = digest([(key("a"), version(1)), (key("b"), version(1))])
    assert outbox.hear(Cursor("e", 2), landed, wish) is Verdict.RESUME
    outbox.rewind(2)
    assert wish.pull(outbox) == {key("c"): version(1)}
    assert outbox.sent_seq == 3, "a number is never used for something else"
    assert str(outbox) == "epoch=e known=2 dirty=0 acked=2 sent=3 flights=0"


def test_what_landed_without_an_ack_may_have_been_refused_without_a_nack() -> None:
    wish = Wish()
    outbox = adopted(wish)
    for seq, name in enumerate("ab", 1):
        wish.change(outbox, name, 1)
        outbox.launch(seq, wish.pull(outbox))
    held = digest([(key("b"), version(1))])
    assert outbox.hear(Cursor("e", 2), held, wish) is Verdict.SURVEY
    outbox.refuse(1, key("a"), "no")
    outbox.settle(2)
    assert outbox.hear(Cursor("e", 2), b"", wish) is Verdict.RESUME, "an Ack comes after every Nack it covers"


def test_what_was_sent_since_a_refused_version_is_in_doubt() -> None:
    wish = Wish()
    outbox = adopted(wish)
    for seq in (1, 2):
        wish.change(outbox, "a", seq)
        outbox.launch(seq, wish.pull(outbox))
    outbox.refuse(1, key("a"), "no")
    assert not outbox.doubt(2, key("a")), "a difference to what was refused: no news"
    assert wish.pull(outbox) == {key("a"): version(2)}


def test_cursor_behind_acked_asks_for_inventory() -> None:
    wish = Wish()
    outbox = adopted(wish)
    wish.change(outbox, "a", 1)
    outbox.launch(1, wish.pull(outbox))
    outbox.settle(1)
    assert outbox.hear(Cursor("e", 0), b"", wish) is Verdict.SURVEY


def test_cursor_beyond_what_was_sent_asks_for_inventory() -> None:
    assert adopted(Wish()).hear(Cursor("e", 1), b"", Wish()) is Verdict.SURVEY


def test_an_unknown_epoch_or_no_cursor_at_all_falls_back_on_the_digest() -> None:
    wish = Wish({key("a"): version(1)})
    outbox = adopted(wish)
    assert outbox.hear(Cursor("other", 0), digest(wish.items()), wish) is Verdict.IDENTICAL
    assert outbox.hear(None, digest(wish.items()), wish) is Verdict.IDENTICAL
    assert outbox.hear(None, digest([]), wish) is Verdict.EMPTY
    assert outbox.hear(None, digest([(key("x"), version(1))]), wish) is Verdict.SURVEY


def test_an_inventory_decides_everything() -> None:
    wish = Wish({key("same"): version(1), key("new"): version(1), key("changed"): version(2)})
    outbox = Outbox("e")
    held = {key("same"): version(1), key("changed"): version(1), key("gone"): version(1)}
    outbox.adopt(held.items(), wish)
    assert wish.pull(outbox) == {key("new"): version(1), key("changed"): version(2), key("gone"): None}


def test_what_a_node_refused_is_not_sent_again_as_it_is() -> None:
    wish = Wish()
    outbox = adopted(wish)
    wish.change(outbox, "bad", 1)
    wish.change(outbox, "good", 1)
    outbox.launch(1, wish.pull(outbox))
    outbox.refuse(1, key("bad"), "no room")
    outbox.settle(1)
    outbox.mark(key("bad"))
    assert wish.pull(outbox) == {}
    assert outbox.refused == {key("bad"): (version(1), "no room")}
    outbox.retry_refused()
    assert wish.pull(outbox) == {key("bad"): version(1)}, "later it gets another chance"
    outbox.refused[key("bad")] = (version(1), "no room")
    wish.change(outbox, "bad", 2)
    assert wish.pull(outbox) == {key("bad"): version(2)}, "a new version gets one at once"
    assert outbox.refused == {}


def test_an_object_we_were_wrong_about_is_sent_again_and_counts_as_unlike_any() -> None:
    wish = Wish()
    outbox = adopted(wish)
    wish.change(outbox, "a", 1)
    outbox.launch(1, wish.pull(outbox))
    outbox.doubt(1, key("a"))
    assert outbox.sent(key("a")) == DOUBTFUL
    outbox.settle(1)
    assert wish.pull(outbox) == {key("a"): version(1)}
    outbox.mark(key("a"))
    del wish[key("a")]
    assert wish.pull(outbox) == {key("a"): None}, "whatever the node holds there, it must go"


NAMES = st.sampled_from("abc")


class OutboxMachine(RuleBasedStateMachine):
    """A node that commits what it is sent, over a link that may lose the tail of it at any time."""

    @initialize()
    def begin(self) -> None:
        self.wish = Wish()
        self.outbox = adopted(self.wish)
        self.held: dict[ObjectKey, ObjectVersion] = {}
        self.line: list[tuple[int, dict[ObjectKey, ObjectVersion | None]]] = []
        self.cursor = 0

    @rule(name=NAMES, number=st.integers(1, 3))
    def change(self, name: str, number: int) -> None:
        self.wish.change(self.outbox, name, number)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.wish.pop(key(name), None)
        self.outbox.mark(key(name))

    @rule(large=st.sampled_from(["", "a", "abc"]))
    def send(self, large: str = "") -> None:
        changes = self.wish.pull(self.outbox, large=large)
        if changes:
            seq = self.outbox.sent_seq + 1
            self.outbox.launch(seq, changes)
            self.line.append((seq, changes))

    @rule(name=NAMES, number=st.integers(1, 3), held=st.none() | st.integers(1, 3))
    def a_transfer_came(self, name: str, number: int, held: int | None) -> None:
        """Of this version, made of that one: whatever the hub believes, it is pushed only where it fits."""
        to, base = version(number), None if held is None else version(held)
        if not self.outbox.may_land(key(name), to, base, self.wish.get):
            self.outbox.look_again(key(name))
            return
        del self.outbox.large[key(name)]
        self.outbox.mark(key(name))
        seq = self.outbox.sent_seq + 1
        self.outbox.launch(seq, {key(name): to})
        self.line.append((seq, {key(name): to}))

    @rule()
    def deliver(self) -> None:
        if self.line:
            seq, changes = self.line.pop(0)
            for changed, to in changes.items():
                if to is None:
                    self.held.pop(changed, None)
                else:
                    self.held[changed] = to
            self.cursor = seq

    @rule()
    def acknowledge(self) -> None:
        self.outbox.settle(self.cursor)

    @rule()
    def reconnect(self) -> None:
        self.line.clear()
        verdict = self.outbox.hear(Cursor(self.outbox.epoch, self.cursor), digest(self.held.items()), self.wish)
        assert verdict is Verdict.RESUME
        self.outbox.rewind(self.cursor)

    @rule()
    def another_hub(self) -> None:
        self.line.clear()
        self.cursor = 0
        self.outbox.renew("f" + self.outbox.epoch[:8])
        self.outbox.adopt(self.held.items(), self.wish)

    @invariant()
    def dirty_covers_the_difference(self) -> None:
        if not hasattr(self, "outbox"):
            return
        sent = dict(self.held)
        for _, changes in self.line:
            for changed, to in changes.items():
                if to is None:
                    sent.pop(changed, None)
                else:
                    sent[changed] = to
        for name in "abc":
            assert self.outbox.sent(key(name)) == sent.get(key(name))
            if self.wish.get(key(name)) != sent.get(key(name)):
                assert key(name) in self.outbox.large or any(key(name) in keys for keys in self.outbox._dirty.values())
                assert not self.outbox.is_settled

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            for large in list(self.outbox.large):
                self.outbox.look_again(large)
            self.send()
            while self.line:
                self.deliver()
            self.acknowledge()
            assert self.held == self.wish
            assert self.outbox.is_settled


OutboxMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestOutbox = OutboxMachine.TestCase


def test_a_refusal_of_what_was_not_sent_leaves_what_followed_alone() -> None:
    wish = Wish()
    outbox = adopted(wish)
    for seq, name in enumerate("ab", 1):
        wish.change(outbox, name, 1)
        outbox.launch(seq, wish.pull(outbox))
    outbox.refuse(1, key("b"), "never sent with it")
    assert not outbox.has_dirty
    assert not outbox.refused
    assert outbox.sent(key("b")) == version(1)
