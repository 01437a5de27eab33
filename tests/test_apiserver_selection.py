"""Selecting, ordering and rewinding lists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import BadRequest
from apimachinery.events import Change, EventType
from apimachinery.keys import ObjectKey
from apimachinery.objects import JSON, Object, from_json
from apimachinery.resources import CONFIG_MAPS, EVENTS, NODES, PODS
from apimachinery.selectors import parse_fields, parse_labels
from apiserver.builtins import BUILT_IN
from apiserver.definitions import Catalogue
from apiserver.selection import check_fields, order, rewind, selects


def pod(name: str = "p", namespace: str = "d", **rest: JSON) -> Object:
    return from_json(
        PODS, {"metadata": {"name": name, "namespace": namespace, "labels": rest.pop("labels", {})}, **rest}
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("metadata.name=p", True),
        ("metadata.name!=p", False),
        ("metadata.namespace=d", True),
        ("spec.nodeName=n1", True),
        ("spec.nodeName=n2", False),
        ("spec.missing=", True),
        ("spec.missing!=", False),
        ("spec.hostNetwork=true", True),
        ("spec.count=3", True),
        ("metadata.name=p,spec.nodeName=n2", False),
    ],
)
def test_field_selectors(fields: str, expected: bool) -> None:
    item = pod(spec={"nodeName": "n1", "hostNetwork": True, "count": 3})
    assert selects(item, fields=parse_fields(fields)) is expected


def test_a_flag_that_is_not_set_is_false_and_an_events_source_is_a_name() -> None:
    node = from_json(NODES, {"metadata": {"name": "n"}, "spec": {}})
    assert selects(node, fields=parse_fields("spec.unschedulable=false"))
    event = from_json(EVENTS, {"metadata": {"name": "e", "namespace": "d"}, "source": {"component": "kubelet"}})
    assert selects(event, fields=parse_fields("source=kubelet"))
    newer = from_json(EVENTS, {"metadata": {"name": "e", "namespace": "d"}, "reportingComponent": "kubelet"})
    assert selects(newer, fields=parse_fields("source=kubelet"))


def test_labels_and_fields_must_both_hold() -> None:
    item = pod(labels={"a": "b"})
    assert selects(item, parse_labels("a=b"), parse_fields("metadata.name=p"))
    assert not selects(item, parse_labels("a=c"), parse_fields("metadata.name=p"))


def test_a_field_that_the_kind_does_not_know_is_refused() -> None:
    definition = Catalogue(BUILT_IN).of(PODS)
    assert definition is not None
    check_fields(definition, parse_fields("metadata.name=a,spec.nodeName=b"))
    with pytest.raises(BadRequest, match=r"field label not supported: spec\.colour"):
        check_fields(definition, parse_fields("spec.colour=red"))


NAMES = st.sampled_from(["a", "b", "c"])


@given(st.lists(st.tuples(NAMES, st.sampled_from(["d", "e"]), st.booleans()), max_size=25), st.data())
def test_rewinding_gives_every_earlier_state_back(steps: list[tuple[str, str, bool]], data: st.DataObject) -> None:
    """Against a history kept in full: put or delete objects, then ask for any earlier revision."""
    held: dict[ObjectKey, tuple[Object, int]] = {}
    states = [dict(held)]
    changes: list[Change] = []
    for name, namespace, is_put in steps:
        revision = len(changes) + 1
        key = ObjectKey(PODS, namespace, name)
        previous = held.get(key)
        if is_put:
            item = pod(name, namespace, data=revision)
            kind = EventType.ADDED if previous is None else EventType.MODIFIED
            held[key] = item, revision
        elif previous is not None:
            item, kind = previous[0], EventType.DELETED
            del held[key]
        else:
            continue
        changes.append(Change(revision, kind, item, None if previous is None else previous[0]))
        states.append(dict(held))
    # A change of another kind in between is nobody's business here.
    target = data.draw(st.integers(0, len(changes)))
    namespace = data.draw(st.sampled_from(["", "d", "e"]))
    now = [pair for key, pair in held.items() if not namespace or key.namespace == namespace]
    found = rewind(now, changes[target:], PODS, namespace, target)
    expected = {key: pair[0] for key, pair in states[target].items() if not namespace or key.namespace == namespace}
    assert {item.key: item for item, _ in found} == expected
    assert [item.key for item, _ in found] == sorted(expected, key=order)
    assert all(revision <= target or revision == dict(found)[item] for item, revision in found)


def test_rewinding_looks_at_one_kind_only() -> None:
    other = from_json(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "d"}})
    assert rewind([], [Change(1, EventType.DELETED, other, other)], PODS, "", 0) == []
