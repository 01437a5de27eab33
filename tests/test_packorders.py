"""One of each node's in turn, each once, in its newest state, and nothing for nobody."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import Node, ObjectKey, ObjectVersion
from apimachinery.objects import Object
from apimachinery.resources import CONFIG_MAPS
from cloudhub.packorders import Order, PackOrders

A, B = Node("a"), Node("b")


def state(name: str, number: int = 0) -> Object:
    return Object(ObjectKey(CONFIG_MAPS, "default", name), ObjectVersion(name, str(number)), {}, b"")


def version(number: int | None) -> ObjectVersion | None:
    return None if number is None else ObjectVersion("held", str(number))


def always(_node: Node, _key: ObjectKey, _held: ObjectVersion | None) -> bool:
    return True


def test_fifty_of_one_node_hold_up_one_of_another_by_the_one_that_is_being_made() -> None:
    orders = PackOrders()
    for number in range(50):
        orders.put(A, state(f"a{number}"), None)
    assert orders.take(always) == Order(state("a0"), None)
    orders.put(B, state("b"), None)
    assert orders.take(always) == Order(state("b"), None)
    assert [order.item.key.name for order in iter(lambda: orders.take(always), None)] == [
        f"a{number}" for number in range(1, 50)
    ]
    assert (len(orders), list(orders)) == (0, [])


def test_what_a_node_asks_for_of_an_object_takes_the_place_of_what_it_asked_for_before() -> None:
    orders = PackOrders()
    orders.put(A, state("x", 1), None)
    orders.put(B, state("y"), None)
    orders.put(A, state("x", 2), version(1))
    assert len(orders) == 2
    assert orders.take(always) == Order(state("x", 2), version(1)), "and has its turn"


names, nodes, helds = st.sampled_from("xyz"), st.sampled_from([A, B, Node("c")]), st.sampled_from([None, 1, 2])


class Put(NamedTuple):
    node: Node
    name: str
    held: int | None


class Take(NamedTuple):
    gone: frozenset[Put]
    """What nobody waits for any more."""


class Forget(NamedTuple):
    name: str


def _awaits(
    asked: dict[tuple[Node, str], int | None],
    gone: frozenset[Put],
    node: Node,
    key: ObjectKey,
    held: ObjectVersion | None,
) -> bool:
    """Who does not wait any more is not among those that asked any more either."""
    found = asked[node, key.name]
    assert held == version(found)
    if is_gone := Put(node, key.name, found) in gone:
        del asked[node, key.name]
    return not is_gone


puts = st.builds(Put, nodes, names, helds)
steps = st.lists(puts | st.builds(Take, st.frozensets(puts)) | st.builds(Forget, names), max_size=40)


@given(steps)
def test_what_is_asked_for_is_given_out_once_in_its_newest_state_or_nobody_waits_for_it(
    steps: Sequence[Put | Take | Forget],
) -> None:
    orders, asked, newest = PackOrders(), dict[tuple[Node, str], int | None](), dict[tuple[str, int | None], int]()
    for number, step in enumerate(steps):
        match step:
            case Put(node, name, held):
                orders.put(node, state(name, number), version(held))
                asked[node, name], newest[name, held] = held, number
            case Take(gone):
                order = orders.take(partial(_awaits, asked, gone))
                if order is None:
                    assert not asked
                    continue
                name, held = order.item.key.name, None if order.held is None else int(order.held.revision)
                assert order.item == state(name, newest[name, held])
                left = {who: each for who, each in asked.items() if (who[1], each) != (name, held)}
                assert len(left) < len(asked), "it was asked for"
                asked = left
            case Forget(name):
                orders.forget(state(name).key)
                asked = {who: each for who, each in asked.items() if who[1] != name}
        waiting = [(order.item.key.name, order.held) for order in orders]
        assert len(waiting) == len(orders) == len(set(waiting))
        assert set(waiting) == {(name, version(held)) for (_, name), held in asked.items()}


@given(st.lists(st.one_of(nodes, st.none()), max_size=60))
def test_whoever_asks_waits_for_one_of_each_other_node_at_most(steps: Sequence[Node | None]) -> None:
    """None is a turn of the packer; each node asks for something new each time."""
    orders, since = PackOrders(), dict[Node, list[Node]]()
    for number, node in enumerate(steps):
        if node is not None:
            orders.put(node, state(f"{node}-{number}"), None)
            since.setdefault(node, [])
        elif (order := orders.take(always)) is not None:
            served = Node(order.item.key.name[0])
            assert len(set(since[served])) == len(since[served]), "of each other node one at most"
            left = any(each.item.key.name[0] == served for each in orders)
            since = {each: [*turns, served] for each, turns in since.items() if each != served}
            since |= {served: []} if left else {}
