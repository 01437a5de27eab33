"""What nodes hold because somebody there reads it: the index, and what decisions come to."""

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import Node, ObjectKey, Resource
from apimachinery.objects import from_json
from apimachinery.resources import CONFIG_MAPS, CUSTOM_RESOURCE_DEFINITIONS, NODES
from apimachinery.watchcache import WatchCache
from cloudhub.interests import (
    GRANTED,
    UNKNOWN,
    Decision,
    Interests,
    Scope,
    affected,
    is_custom,
    judged,
    scope_of,
    scopes_of,
)
from link.frames import Interest, RefusedInterest

WIDGETS = Resource("example.com", "v1", "widgets", "Widget", True)
NEWER = WIDGETS._replace(version="v2")
NODE = Node("n1")

NAMES = st.sampled_from(["", "a", "b"])
SCOPES = st.frozensets(st.builds(Scope, st.just("example.com"), st.sampled_from(["widgets", "gadgets"]), NAMES, NAMES))
KEYS = st.builds(
    ObjectKey,
    st.sampled_from([WIDGETS, NEWER, WIDGETS._replace(plural="gadgets"), CONFIG_MAPS]),
    NAMES,
    st.sampled_from("ab"),
)


@given(st.lists(st.tuples(st.sampled_from(["n1", "n2"]), SCOPES, SCOPES)), st.lists(KEYS))
def test_the_index_equals_a_look_at_everything(
    steps: list[tuple[str, frozenset[Scope], frozenset[Scope]]], keys: list[ObjectKey]
) -> None:
    index = Interests()
    now: dict[Node, tuple[frozenset[Scope], frozenset[Scope]]] = {}
    for name, granted, kept in steps:
        node = Node(name)
        before = now.get(node, (frozenset(), frozenset()))
        changed = index.set_scopes(node, granted, kept)
        assert changed == (before[0] ^ granted) | (before[1] ^ kept)
        now[node] = (granted, kept)
        assert list(index.granted(node)) == sorted(granted)
        assert index.is_unknown(node) == bool(kept)

    def selects(scope: Scope, key: ObjectKey) -> bool:
        return (
            (scope.group, scope.plural) == (key.resource.group, key.resource.plural)
            and scope.namespace in ("", key.namespace)
            and scope.name in ("", key.name)
        )

    for key in keys:
        holders = [node for node, (granted, _) in now.items() if any(selects(scope, key) for scope in granted)]
        assert index.nodes(key) == sorted(holders)
        for node, (granted, kept) in now.items():
            assert index.covers(node, key) == any(selects(scope, key) for scope in granted)
            assert index.keeps(node, key) == any(selects(scope, key) for scope in kept)
    for node in now:
        index.set_scopes(node, frozenset(), frozenset())
    assert vars(Interests()) == vars(index), "nothing is left"


def test_an_object_is_in_a_scope_whatever_its_version() -> None:
    scope = scope_of(Interest(WIDGETS, "a", "w"))
    for resource in (WIDGETS, NEWER):
        assert scope in scopes_of(ObjectKey(resource, "a", "w"))
    assert scope not in scopes_of(ObjectKey(NEWER, "b", "w"))
    assert list(scopes_of(ObjectKey(NODES, "", "n"))) == [Scope("", "nodes", "", ""), Scope("", "nodes", "", "n")]


def test_what_decisions_come_to() -> None:
    ours, core, refused, unknown = (
        Interest(WIDGETS),
        Interest(CONFIG_MAPS, "a"),
        Interest(NODES),
        Interest(WIDGETS, "b"),
    )
    found = judged(
        (ours, core, refused, unknown),
        {
            ours: Decision(GRANTED, resource=NEWER),
            core: Decision(GRANTED, resource=CONFIG_MAPS),
            refused: Decision(403, "no"),
            unknown: Decision(UNKNOWN, "soon", is_pending=True),
        },
    )
    definition = Scope("apiextensions.k8s.io", CUSTOM_RESOURCE_DEFINITIONS.plural, "", "widgets.example.com")
    assert found.refused == (RefusedInterest(refused, 403, "no"), RefusedInterest(unknown, UNKNOWN, "soon"))
    assert found.resources == (NEWER, CONFIG_MAPS)
    assert found.granted == {scope_of(ours), scope_of(core), definition}
    assert found.kept == {scope_of(unknown)}, "what is granted by another interest is not kept besides"


def test_what_is_granted_to_one_and_unknown_to_another_is_granted() -> None:
    one, other = Interest(WIDGETS), Interest(WIDGETS, user="system:serviceaccount:a:b")
    found = judged((one, other), {one: Decision(GRANTED, resource=WIDGETS), other: Decision(UNKNOWN)})
    assert scope_of(one) in found.granted
    assert not found.kept


def test_groups_of_kubernetes_itself_have_no_definitions() -> None:
    assert [is_custom(group) for group in ("", "apps", "rbac.authorization.k8s.io", "example.com")] == [
        False,
        False,
        False,
        True,
    ]


def test_what_may_have_changed_is_what_there_is_and_what_is_held() -> None:
    cache = WatchCache()
    items = [from_json(WIDGETS, {"metadata": {"name": name, "namespace": "a"}}) for name in ("x", "y")]
    cache.replace(WIDGETS, items, "1")
    cache.replace(NODES, [], "1")
    gone, foreign = ObjectKey(WIDGETS, "a", "gone"), ObjectKey(CONFIG_MAPS, "a", "x")

    def told(*interests: Interest) -> list[str]:
        held = (gone, foreign)
        return [key.name for key in affected(map(scope_of, interests), cache, held)]

    assert told() == []
    assert told(Interest(WIDGETS)) == told(Interest(WIDGETS, "a")) == ["x", "y", "gone"]
    assert told(Interest(WIDGETS, "b")) == []
    assert told(Interest(WIDGETS, "a", "y")) == ["y"]
    assert told(Interest(WIDGETS, "", "y")) == ["y"]
    assert told(Interest(NODES, "", "n")) == ["n"], "named, so it may come"
