"""Bodies told as what changed."""

import base64
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object, canonical, revision_of
from apimachinery.resources import PODS
from cloudhub.patches import VERSIONS, Patches, patch
from link.frames import Delta
from link.packing import pack_against, unpack_against
from metamanager.intake import unfold

KEY = ObjectKey(PODS, "default", "web")


def an_object(content: Any, uid: str = "u") -> Object:
    body = canonical(content)
    return Object(KEY, ObjectVersion(uid, revision_of(body)), {}, body)


def a_pod(image: str) -> Object:
    """About 4 KB, as pods are."""
    container = {
        "name": "c",
        "image": image,
        "env": [{"name": f"NAME_{n}", "value": f"value {n * 7919}"} for n in range(99)],
    }
    return an_object({"spec": {"containers": [container]}})


JSON_VALUES = st.recursive(
    st.integers() | st.text(max_size=30) | st.booleans(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


@given(JSON_VALUES, JSON_VALUES)
def test_what_is_folded_unfolds_to_the_same(old: Any, new: Any) -> None:
    before, after = an_object(old), an_object(new)
    packed = pack_against(after.body, before.body)
    delta = Delta(KEY, after.version, packed, before.version.revision, len(after.body))
    assert unfold(delta, before) == Delta(KEY, after.version, after.body)


def test_one_field_of_a_pod_costs_bytes_in_proportion() -> None:
    before, after = a_pod("nginx:1.26"), a_pod("nginx:1.27")
    assert len(after.body) > 3000
    patches = Patches()
    patches.remember(before)
    patch = patches.between(before.version, after)
    assert patch is not None
    assert len(patch) < 100


def test_one_field_of_a_large_object_costs_bytes_in_proportion() -> None:
    noise = base64.b85encode(random.Random(1).randbytes(800_000)).decode()
    before, after = (an_object({"a": noise, "b": {"word": word}, "c": noise}) for word in ("old", "newer"))
    assert len(after.body) > 2_000_000
    patches = Patches()
    patches.remember(before)
    patch = patches.between(before.version, after)
    assert patch is not None
    assert len(patch) < 100
    delta = Delta(KEY, after.version, patch, before.version.revision, len(after.body))
    assert unfold(delta, before) == Delta(KEY, after.version, after.body)


def test_the_whole_goes_where_the_old_is_not_known_or_not_the_same_object() -> None:
    before, after = a_pod("a"), a_pod("b")
    patches = Patches()
    assert patches.between(None, after) is None
    assert patches.between(before.version, after) is None
    patches.remember(before)
    assert patches.between(ObjectVersion("another", before.version.revision), after) is None


def test_small_or_unlike_bodies_go_whole() -> None:
    patches = Patches()
    small = an_object({"a": 1})
    patches.remember(small)
    assert patches.between(small.version, an_object({"a": 2})) is None
    noise = [an_object(base64.b85encode(random.Random(seed).randbytes(900)).decode()) for seed in (1, 2)]
    patches.remember(noise[0])
    assert patches.between(noise[0].version, noise[1]) is None


def noise(seed: int, size: int) -> str:
    return base64.b64encode(random.Random(seed).randbytes(size)).decode()


def test_of_a_body_of_noise_either_what_is_new_is_packed_or_the_whole() -> None:
    old, anew, half = (
        an_object({"a": noise(a, 300_000), "b": noise(b, 300_000)}).body for a, b in ((1, 2), (3, 4), (1, 4))
    )
    assert patch(anew, old) == (None, False, False), "the whole is as small, and for all nodes"
    made = patch(half, old)
    assert made.data is not None
    assert made.is_least, "the whole is twice as large"
    assert unpack_against(made.data, len(half), old) == half


def test_of_what_repeats_the_whole_is_looked_at_unless_the_difference_is_small() -> None:
    words = [f"{number * 7919 % 99991} degrees " for number in range(30_000)]
    old, turned, field = (
        an_object({"a": each}).body for each in ("".join(words), "".join(words[::-1]), "".join(words[1:]))
    )
    assert patch(turned, old).is_least is False
    made = patch(field, old)
    assert made.data is not None
    assert len(made.data) < 100
    assert made.is_least


def test_memory_is_bounded_and_the_oldest_forgotten_first() -> None:
    bodies = [a_pod(f"image:{n}") for n in range(10)]
    patches = Patches(max_bytes=3 * len(bodies[0].body) + 1000)
    for body in bodies:
        patches.remember(body)
    assert len(patches) <= 3 * len(bodies[0].body) + 1000
    assert patches.between(bodies[0].version, bodies[-1]) is None
    assert patches.between(bodies[-2].version, bodies[-1]) is not None


def test_of_one_object_only_the_last_bodies_are_kept_however_often_it_changes() -> None:
    bodies = [a_pod(f"image:{n}") for n in range(100, 160)]
    patches = Patches()
    for body in bodies[:-1]:
        patches.remember(body)
    assert len(patches) == VERSIONS * len(bodies[0].body)
    assert patches.between(bodies[-2].version, bodies[-1]) is not None
    assert patches.between(bodies[-1 - VERSIONS].version, bodies[-1]) is not None
    assert patches.between(bodies[-2 - VERSIONS].version, bodies[-1]) is None


def test_a_body_that_comes_back_is_kept_once_and_as_the_newest() -> None:
    first, second = a_pod("a"), a_pod("b")
    patches = Patches()
    for body in [first, second] * VERSIONS:
        patches.remember(body)
    assert len(patches) == len(first.body) + len(second.body)
    assert patches.between(first.version, second) is not None


def test_of_an_object_that_is_deleted_nothing_is_kept() -> None:
    before, after = a_pod("a"), a_pod("b")
    patches = Patches()
    patches.remember(before)
    patches.forget(KEY)
    patches.forget(KEY)
    assert len(patches) == 0
    assert patches.between(before.version, after) is None
