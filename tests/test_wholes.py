"""Bodies that go whole, packed once."""

import base64
import random
from typing import Any

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object, canonical, revision_of
from apimachinery.resources import PODS
from cloudhub.wholes import ENTRY_BYTES, Wholes
from link.packing import unpack
from tests.harness.pods import deployed_pod


def an_object(content: Any, name: str = "web") -> Object:
    body = canonical(content)
    return Object(ObjectKey(PODS, "default", name), ObjectVersion("u", revision_of(body)), {}, body)


def a_pod(number: int, name: str = "web") -> Object:
    return an_object(deployed_pod(number, "edge-1", random.Random(number)), name)


def test_a_body_is_packed_once_and_shared_by_all_nodes() -> None:
    wholes, item = Wholes(), a_pod(1)
    packed = wholes.packed(item)
    assert packed is not None
    assert unpack(packed, len(item.body)) == item.body
    assert wholes.packed(item) is packed


def test_a_new_version_takes_the_place_of_the_old() -> None:
    wholes, old, new = Wholes(), a_pod(1), a_pod(2)
    wholes.packed(old)
    packed = wholes.packed(new)
    assert packed is not None
    assert unpack(packed, len(new.body)) == new.body
    assert len(wholes) == ENTRY_BYTES + len(packed)


def test_what_does_not_get_smaller_goes_as_it_is() -> None:
    wholes = Wholes()
    assert wholes.packed(an_object({"a": 1})) is None
    noise = an_object(base64.b85encode(random.Random(1).randbytes(3000)).decode())
    assert wholes.packed(noise) is None
    assert len(wholes) == ENTRY_BYTES, "and is not packed again to find that out"


def test_memory_is_bounded_and_what_was_least_lately_asked_for_goes_first() -> None:
    items = [a_pod(number, f"p{number}") for number in range(5)]
    entry = ENTRY_BYTES + len(Wholes().packed(items[0]) or b"")
    wholes = Wholes(max_bytes=4 * entry)
    first = wholes.packed(items[0])
    for item in items[1:]:
        wholes.packed(item)
        assert wholes.packed(items[0]) is first, "it was asked for a moment ago"
        assert len(wholes) <= 4 * entry
    again = Wholes(max_bytes=1)
    for item in items:
        assert again.packed(item) is not None, "one entry always has room"
    assert len(again) < 2 * entry


def test_of_an_object_that_is_deleted_nothing_is_kept() -> None:
    wholes, item = Wholes(), a_pod(1)
    wholes.packed(item)
    wholes.forget(item.key)
    wholes.forget(item.key)
    assert len(wholes) == 0
    assert wholes.packed(item) is not None
