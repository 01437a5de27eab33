"""The watch cache's contract: list at r, then since(r), equals list now."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.errors import Expired
from apimachinery.events import Change, EventType, WatchEvent
from apimachinery.keys import ObjectKey
from apimachinery.objects import Object, from_json
from apimachinery.resources import CONFIG_MAPS, NODES, PODS
from apimachinery.selectors import parse_labels
from apimachinery.watchcache import ChangeWindow, WatchCache


def an_object(name: str, version: int, namespace: str = "default", **labels: str) -> Object:
    metadata = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": str(version), "labels": labels}
    return from_json(CONFIG_MAPS, {"metadata": metadata})


def event(kind: EventType, item: Object) -> WatchEvent:
    return WatchEvent(kind, item, item.version.revision)


NAMES = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.integers(1, 9)),
        st.tuples(st.just("delete"), NAMES, st.just(0)),
        st.tuples(st.just("replace"), st.sets(NAMES), st.integers(1, 9)),
    ),
    max_size=30,
)


def perform(cache: WatchCache, step: tuple[str, object, int]) -> list[Change]:
    what, names, version = step
    if what == "replace":
        assert isinstance(names, set)
        return cache.replace(CONFIG_MAPS, [an_object(name, version) for name in sorted(names)], str(version))
    assert isinstance(names, str)
    kind = EventType.MODIFIED if what == "put" else EventType.DELETED
    return cache.apply(event(kind, an_object(names, version)))


def replay(objects: dict[ObjectKey, Object], changes: list[Change]) -> dict[ObjectKey, Object]:
    objects = dict(objects)
    for change in changes:
        if change.type is EventType.DELETED:
            del objects[change.object.key]
        else:
            assert (change.type is EventType.ADDED) == (change.object.key not in objects)
            assert change.previous == objects.get(change.object.key)
            objects[change.object.key] = change.object
    return objects


@given(STEPS, STEPS)
def test_list_then_since_equals_list_now(
    before: list[tuple[str, object, int]], after: list[tuple[str, object, int]]
) -> None:
    cache = WatchCache()
    for step in before:
        perform(cache, step)
    listed, revision = cache.list(CONFIG_MAPS)
    told = [change for step in after for change in perform(cache, step)]
    now, current = cache.list(CONFIG_MAPS)
    assert cache.since(revision) == told
    assert [change.revision for change in told] == list(range(revision + 1, current + 1))
    assert replay({item.key: item for item in listed}, told) == {item.key: item for item in now}


def test_replace_tells_of_what_vanished_and_nothing_of_what_stayed() -> None:
    cache = WatchCache()
    cache.replace(CONFIG_MAPS, [an_object("a", 1), an_object("b", 1)], "1")
    changes = cache.replace(CONFIG_MAPS, [an_object("b", 1), an_object("c", 2)], "2")
    assert [(change.type, change.object.key.name) for change in changes] == [("DELETED", "a"), ("ADDED", "c")]
    assert cache.resume_version(CONFIG_MAPS) == "2"


def test_not_synced_until_a_list_was_taken_in() -> None:
    cache = WatchCache()
    assert not cache.is_synced(CONFIG_MAPS)
    cache.replace(CONFIG_MAPS, [], "5")
    assert cache.is_synced(CONFIG_MAPS)
    assert not cache.is_synced(PODS)


def test_a_bookmark_moves_the_resume_version_only() -> None:
    cache = WatchCache()
    cache.replace(CONFIG_MAPS, [an_object("a", 1)], "1")
    assert cache.apply(WatchEvent(EventType.BOOKMARK, None, "9"), CONFIG_MAPS) == []
    assert cache.resume_version(CONFIG_MAPS) == "9"
    assert cache.revision == 1


def test_selection_by_namespace_and_label_in_key_order() -> None:
    cache = WatchCache()
    items = [
        an_object("b", 1, app="web"),
        an_object("a", 1, app="web"),
        an_object("c", 1),
        an_object("d", 1, "other", app="web"),
    ]
    cache.replace(CONFIG_MAPS, items, "1")
    assert [item.key.name for item in cache.list(CONFIG_MAPS, "default", parse_labels("app=web"))[0]] == ["a", "b"]
    assert [item.key.name for item in cache.list(CONFIG_MAPS)[0]] == ["a", "b", "c", "d"]


def test_the_window_is_bounded_and_says_so() -> None:
    cache = WatchCache(window=3)
    for version in range(1, 6):
        cache.apply(event(EventType.MODIFIED, an_object("a", version)))
    assert [change.revision for change in cache.since(2)] == [3, 4, 5]
    with pytest.raises(Expired, match="too old"):
        cache.since(1)
    with pytest.raises(Expired, match="too large"):
        cache.since(6)


def test_of_one_resource_only_its_own_changes_count_as_forgotten() -> None:
    window = ChangeWindow(10, window=3)

    def commit(revision: int, item: Object) -> None:
        window.append(Change(revision, EventType.MODIFIED, item, None))

    quiet = from_json(PODS, {"metadata": {"name": "a", "namespace": "default", "uid": "a", "resourceVersion": "1"}})
    commit(11, quiet)
    for revision in range(12, 30):
        commit(revision, an_object("a", revision))
    assert (window.last(PODS), window.last(CONFIG_MAPS)) == (11, 29)
    assert window.since(11, PODS) == []
    with pytest.raises(Expired, match=r"too old resource version: 10 \(11\)"):
        window.since(10, PODS)
    with pytest.raises(Expired):
        window.since(25, CONFIG_MAPS)
    commit(30, quiet)
    assert [change.revision for change in window.since(11, PODS)] == [30]
    assert [change.revision for change in window.since(27, CONFIG_MAPS)] == [28, 29]
    assert [change.revision for change in window.since(27)] == [28, 29, 30]
    with pytest.raises(Expired):
        window.since(9, NODES)  # before there was a history
    with pytest.raises(Expired, match="too large"):
        window.since(31, PODS)


def test_the_window_is_bounded_in_bytes_but_for_what_is_committed_together() -> None:
    window = ChangeWindow(window=1000, window_bytes=10_000)

    def commit(first: int, count: int, size: int) -> None:
        window.shorten()
        for revision in range(first, first + count):
            item = an_object("a", revision)._replace(body=b"x" * size)
            window.append(Change(revision, EventType.MODIFIED, item, None))

    commit(1, 150, 100)
    assert len(window.since(0)) == 150
    commit(151, 20, 1000)
    assert len(window.since(50)) == 120
    with pytest.raises(Expired):
        window.since(49)
    commit(171, 1, 1)
    assert len(window.since(160)) == 11
    with pytest.raises(Expired):
        window.since(159)
    commit(172, 1, 20_000)
    commit(173, 1, 1)
    assert len(window.since(172)) == 1


def test_a_forgotten_resource_is_deleted_object_by_object() -> None:
    cache = WatchCache()
    cache.replace(CONFIG_MAPS, [an_object("a", 1)], "1")
    assert [change.type for change in cache.forget(CONFIG_MAPS)] == ["DELETED"]
    assert not cache.is_synced(CONFIG_MAPS)
    assert len(cache) == 0


def test_a_window_takes_dense_revisions_only() -> None:
    window = ChangeWindow(revision=7)
    with pytest.raises(ValueError, match="does not follow"):
        window.append(Change(9, EventType.ADDED, an_object("a", 1), None))
    with pytest.raises(ValueError, match="at least one"):
        ChangeWindow(window=0)
