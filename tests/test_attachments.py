"""Tests for cloudhub.attachments: the index equals a look at all Devices, whatever happened to them."""

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import Node, ObjectKey
from apimachinery.resources import DEVICE_MODELS, DEVICES
from cloudhub.attachments import Attachments

NAMES = ("a", "b", "c")


def key(name: str) -> ObjectKey:
    return ObjectKey(DEVICES, "default", name)


def model(name: str) -> ObjectKey:
    return ObjectKey(DEVICE_MODELS, "default", name)


@given(
    st.lists(
        st.tuples(st.sampled_from(NAMES), st.none() | st.tuples(st.sampled_from(["n1", "n2"]), st.sampled_from("xy")))
    )
)
def test_the_index_equals_a_look_at_all(steps: list[tuple[str, tuple[str, str] | None]]) -> None:
    attachments = Attachments()
    devices: dict[str, tuple[str, str]] = {}
    for name, place in steps:
        if place is None:
            devices.pop(name, None)
            attachments.detach(key(name))
        else:
            devices[name] = place
            spec = {"nodeName": place[0], "deviceModelRef": {"name": place[1]}, "properties": [{"name": "level"}]}
            attachments.attach(key(name), {"spec": spec})
        assert {name for name in NAMES if key(name) in attachments} == set(devices)
        for node in ("n1", "n2", "n3"):
            wanted = {key(name) for name, place in devices.items() if place[0] == node}
            assert set(attachments.of_node(Node(node))) == wanted
        for each in ("x", "y", "z"):
            wanted = {key(name) for name, place in devices.items() if place[1] == each}
            assert set(attachments.of_model(model(each))) == wanted
        for name, place in devices.items():
            assert attachments.get(key(name)) == (Node(place[0]), model(place[1]), ("level",))
