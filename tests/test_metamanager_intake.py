"""What is taken from a hub and what is refused, in which words."""

import tracemalloc

import pytest

from apimachinery.keys import ObjectKey, ObjectVersion
from apimachinery.objects import Object, canonical, revision_of
from apimachinery.resources import CONFIG_MAPS, NODES
from link.frames import Delta
from link.packing import pack, pack_against
from metamanager.intake import MAX_BODY_BYTES, NotHeld, Untakable, intake, prepared, take, unfold
from tests.harness.store_history import upsert

GOOD = upsert(CONFIG_MAPS, "a", 1, app="web")


def with_body(body: bytes) -> Delta:
    return GOOD._replace(body=body)


def saying(**fields: object) -> Delta:
    metadata = {"name": "a", "namespace": "default"} | dict(fields.pop("metadata", {}))  # type: ignore[call-overload]
    return with_body(canonical({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata} | fields))


def test_an_object_is_taken_with_its_labels() -> None:
    assert GOOD.version is not None
    assert take(GOOD) == Object(GOOD.key, GOOD.version, {"app": "web"}, GOOD.body)


def test_an_item_of_a_list_need_not_say_what_it_is() -> None:
    take(with_body(b'{"metadata":{"name":"a","namespace":"default"}}'))


@pytest.mark.parametrize(
    ("delta", "reason"),
    [
        (with_body(b""), "not JSON"),
        (with_body(b"\xff"), "not JSON"),
        (with_body(b'{"a":NaN}'), "NaN is not a JSON value"),
        (with_body(b"[" * 100_000), "nested too deeply"),
        (with_body(b"[]"), "not a JSON object"),
        (with_body(b"{}"), "no metadata"),
        (with_body(b'{"metadata":[]}'), "no metadata"),
        (with_body(b" " * (MAX_BODY_BYTES + 1)), f"more than {MAX_BODY_BYTES}"),
        (saying(metadata={"name": "b"}), "metadata.name in the body is 'b', but the key says 'a'"),
        (saying(metadata={"name": ["a"]}), "metadata.name"),
        (saying(metadata={"namespace": "other"}), "metadata.namespace"),
        (saying(kind="Secret"), "kind in the body is 'Secret'"),
        (saying(apiVersion="v2"), "apiVersion"),
        (saying(metadata={"labels": ["a"]}), "metadata.labels"),
        (saying(metadata={"labels": {"a": 1}}), "metadata.labels"),
        (GOOD._replace(key=ObjectKey(CONFIG_MAPS, "", "a")), "needs a namespace"),
        (GOOD._replace(key=ObjectKey(NODES, "default", "a")), "has no namespace"),
        (GOOD._replace(key=ObjectKey(CONFIG_MAPS, "default", "")), "empty or too long"),
        (GOOD._replace(key=ObjectKey(CONFIG_MAPS, "default", "a" * 300)), "empty or too long"),
    ],
)
def test_what_is_not_the_object_of_its_key_is_refused(delta: Delta, reason: str) -> None:
    with pytest.raises(Untakable, match=reason):
        take(delta._replace(version=ObjectVersion("u", "1")))


KEY = ObjectKey(CONFIG_MAPS, "default", "a")


def told_against(old: bytes, new: bytes, revision: str = "") -> tuple[Delta, Object]:
    """A difference between two bodies, and the object it is told against."""
    held = Object(KEY, ObjectVersion("u", revision_of(old)), {}, old)
    version = ObjectVersion("u", revision or revision_of(new))
    return Delta(KEY, version, pack_against(new, old), revision_of(old), len(new)), held


def told_packed(new: bytes) -> Delta:
    return Delta(KEY, ObjectVersion("u", revision_of(new)), pack(new), size=len(new))


def test_a_difference_unfolds_against_what_is_held() -> None:
    delta, held = told_against(b'{"a":1}', b'{"a":2}')
    assert unfold(delta, held) == Delta(KEY, delta.version, b'{"a":2}')


def test_a_packed_body_unfolds_whatever_is_held() -> None:
    delta = told_packed(b'{"a":2}')
    for held in (None, told_against(b'{"a":1}', b'{"a":2}')[1]):
        assert unfold(delta, held) == Delta(KEY, delta.version, b'{"a":2}')


def test_a_plain_body_is_left_as_it_is() -> None:
    whole = Delta(KEY, ObjectVersion("u", "r"), b"{}")
    assert unfold(whole, None) is whole


def test_a_difference_to_something_else_is_not_taken() -> None:
    delta, held = told_against(b'{"a":1}', b'{"a":2}')
    other = held._replace(version=ObjectVersion("u", "another"))
    recreated = held._replace(version=held.version._replace(uid="v"))
    for wrong in (None, other, recreated):
        with pytest.raises(NotHeld, match="not held"):
            unfold(delta, wrong)


@pytest.mark.parametrize("told", [told_against(b'{"a":1}', b'{"a":2}'), (told_packed(b'{"a":2}'), None)])
def test_what_does_not_unpack_to_its_version_is_not_taken(told: tuple[Delta, Object | None]) -> None:
    delta, held = told
    assert delta.version is not None
    with pytest.raises(NotHeld, match="does not unpack to the version"):
        unfold(delta._replace(version=delta.version._replace(revision="f" * 24)), held)
    with pytest.raises(NotHeld, match="cannot be unpacked"):
        unfold(delta._replace(body=b"rubbish"), held)
    for body, size in ((delta.body[:-5], delta.size), (delta.body, delta.size - 1), (delta.body, delta.size + 1)):
        with pytest.raises(NotHeld, match="does not unpack to"):
            unfold(delta._replace(body=body, size=size), held)


def test_a_body_that_unpacks_to_a_flood_is_stopped_at_the_size_it_says() -> None:
    flood = b"x" * (50 << 20)
    for delta, held in (told_against(b"{}", flood), (told_packed(flood), None)):
        assert len(delta.body) * 200 < len(flood), "a flood is small on the line"
        for size in (100, MAX_BODY_BYTES, len(flood)):
            tracemalloc.start()
            with pytest.raises(NotHeld, match="does not unpack to"):
                unfold(delta._replace(size=size), held)
            assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BODY_BYTES
            tracemalloc.stop()


def test_what_does_not_depend_on_what_is_held_is_made_beforehand() -> None:
    body = b'{"metadata":{"name":"a","namespace":"default"}}'
    packed, odd = told_packed(body), told_packed(b'{"metadata":{}}')
    for delta in (packed, odd, packed._replace(body=b"rubbish"), Delta(KEY, ObjectVersion("u", "1"), body)):
        ready = prepared(delta)
        assert (ready.body, ready.whole_size) == (b"", delta.whole_size), "the packed body is not held any more"
        assert ready.taken is not None
        assert intake(ready, None) is ready.taken
        assert ready.taken == intake(delta, None)
    against, _ = told_against(b'{"a":1}', body)
    assert prepared(against) is against
    removal = Delta(KEY, None, b"")
    assert prepared(removal) is removal
