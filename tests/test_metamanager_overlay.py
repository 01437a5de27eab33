"""Local writes over what the cloud pushed: what clients see, and what is given up when the cloud says otherwise."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apimachinery.events import EventType
from apimachinery.keys import ObjectKey, Resource
from apimachinery.objects import canonical, from_json
from apimachinery.resources import EVENTS, LEASES, PODS
from apimachinery.selectors import ALL_FIELDS, EVERYTHING, parse_fields
from apiserver import strategic
from link.frames import Delta
from metamanager.opening import open_records
from metamanager.overlay import LocalWrite, StoredObject, shown, survives
from metamanager.records import Records
from tests.harness.store_history import batch, removal


def body(resource: Resource, name: str, uid: str = "u", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": uid}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata} | rest


def pushed(resource: Resource, name: str, uid: str = "u", **rest: Any) -> Delta:
    item = from_json(resource, body(resource, name, uid, **rest))
    return Delta(item.key, item.version, item.body)


def patch_of(key: ObjectKey, patch: Any, subresource: str = "status", uid: str = "u") -> LocalWrite:
    return LocalWrite(0, key, subresource, uid, False, "", 0, 5, canonical(patch))


def event_of(name: str, uid: str = "local") -> LocalWrite:
    value = canonical(body(EVENTS, name, uid, reason="Because"))
    return LocalWrite(0, ObjectKey(EVENTS, "default", name), "", uid, True, "", 0, 5, value)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    database, records = open_records(tmp_path / "edge.db")
    yield records
    database.close()


RUNNING = pushed(PODS, "web", spec={"nodeName": "n"}, status={"phase": "Running", "hostIP": "1"})
FAILED = {"status": {"phase": "Failed"}}


def status(records: Records, key: ObjectKey = RUNNING.key) -> Any:
    seen = records.get(key)
    return None if seen is None else seen.object.parse().get("status")


def names(records: Records, resource: Resource = PODS, fields: str = "", limit: int = 0) -> list[str]:
    found, _ = records.list(resource, "", EVERYTHING, parse_fields(fields), limit, None)
    return [item.object.key.name for item in found]


def write(records: Records, made: LocalWrite) -> Any:
    seen = records.get(made.key)
    return records.write_locally(made, None if seen is None else seen.revision)


def test_a_local_write_is_seen_at_once_and_what_the_cloud_pushed_stays(records: Records) -> None:
    records.apply([batch(1, RUNNING)], 0)
    digest, revision = records.digest(), records.revision
    (change,) = write(records, patch_of(RUNNING.key, FAILED))
    assert (change.revision, change.type) == (revision + 1, EventType.MODIFIED)
    assert change.previous is not None
    assert change.previous.parse()["status"]["phase"] == "Running"
    assert status(records) == {"phase": "Failed", "hostIP": "1"}
    assert names(records, fields="status.phase=Failed") == ["web"]
    assert names(records, fields="status.phase=Running") == []
    look = records.look(RUNNING.key)
    assert (look.held and look.held.object.body, look.seen and look.seen.revision) == (RUNNING.body, revision + 1)
    assert records.digest() == digest, "the link's fingerprint is of what was pushed"


def test_a_write_from_an_older_state_is_not_taken(records: Records) -> None:
    records.apply([batch(1, RUNNING)], 0)
    revision = records.revision
    write(records, patch_of(RUNNING.key, FAILED))
    assert records.write_locally(patch_of(RUNNING.key, {"status": {"phase": "Unknown"}}), revision) is None
    assert records.write_locally(event_of("e"), 5) is None
    assert status(records)["phase"] == "Failed"


def test_what_the_cloud_changes_elsewhere_shows_beside_the_write(records: Records) -> None:
    records.apply([batch(1, RUNNING)], 0)
    write(records, patch_of(RUNNING.key, FAILED))
    moved = pushed(PODS, "web", spec={"nodeName": "n"}, status={"phase": "Running", "hostIP": "2"})
    (change,) = records.apply([batch(2, moved)], 0).changes
    assert change.object.parse()["status"] == {"phase": "Failed", "hostIP": "2"}
    assert status(records) == {"phase": "Failed", "hostIP": "2"}


def test_once_the_cloud_has_it_nothing_changes_for_clients(records: Records) -> None:
    records.apply([batch(1, RUNNING)], 0)
    write(records, patch_of(RUNNING.key, FAILED))
    seen = records.get(RUNNING.key)
    taken = pushed(PODS, "web", spec={"nodeName": "n"}, status={"phase": "Failed", "hostIP": "1"})
    assert records.apply([batch(2, taken)], 0).changes == []
    assert records.get(RUNNING.key) == seen
    (kept,) = records.local_writes()
    assert records.settle_locally(kept.seq) == []
    assert records.get(RUNNING.key) == seen
    assert records.local_writes() == []
    assert records.settle_locally(kept.seq) == []


def test_a_write_that_the_cloud_will_never_have_is_taken_back(records: Records) -> None:
    records.apply([batch(1, RUNNING)], 0)
    write(records, patch_of(RUNNING.key, FAILED))
    (change,) = records.settle_locally(records.local_writes()[0].seq)
    assert (change.type, change.revision, change.object.body) == (EventType.MODIFIED, records.revision, RUNNING.body)
    seen = records.get(RUNNING.key)
    assert (seen and seen.revision) == records.revision


def test_a_write_made_meanwhile_stays(records: Records) -> None:
    records.apply([batch(1, RUNNING)], 0)
    write(records, patch_of(RUNNING.key, FAILED))
    first = records.local_writes()[0]
    write(records, patch_of(RUNNING.key, {"status": {"phase": "Succeeded"}}))
    assert records.settle_locally(first.seq) == []
    assert status(records)["phase"] == "Succeeded"
    assert len(records.local_writes()) == 1


@pytest.mark.parametrize("uid", [None, "another"])
def test_a_write_to_an_object_that_went_goes_with_it(records: Records, uid: str | None) -> None:
    records.apply([batch(1, RUNNING)], 0)
    write(records, patch_of(RUNNING.key, FAILED))
    last = removal(RUNNING) if uid is None else pushed(PODS, "web", uid, status={"phase": "Pending"})
    changes = records.apply([batch(2, last)], 0).changes
    assert [change.type for change in changes] == [EventType.DELETED, *([EventType.ADDED] if uid else [])]
    assert changes[0].object.parse()["status"]["phase"] == "Failed", "the state that clients knew"
    assert records.local_writes() == []
    assert status(records) == ({"phase": "Pending"} if uid else None)


def test_a_lease_that_somebody_else_holds_now_is_theirs() -> None:
    lease = from_json(LEASES, body(LEASES, "l", spec={"holderIdentity": "them"}))
    ours = patch_of(lease.key, {"spec": {"holderIdentity": "us", "renewTime": "now"}}, "")
    renewal = patch_of(lease.key, {"spec": {"holderIdentity": "them", "renewTime": "now"}}, "")
    assert not survives(ours, lease)
    assert survives(renewal, lease)
    assert not survives(renewal, None)


def test_an_event_made_here_is_seen_until_the_cloud_has_it(records: Records) -> None:
    (change,) = write(records, event_of("b"))
    assert change.type is EventType.ADDED
    records.apply([batch(1, pushed(EVENTS, "a"), pushed(EVENTS, "c"))], 0)
    assert names(records, EVENTS) == ["a", "b", "c"]
    assert names(records, EVENTS, limit=2) == ["a", "b"]
    changes = records.apply([batch(2, pushed(EVENTS, "b", "cloud"))], 0).changes
    assert [change.type for change in changes] == [EventType.DELETED, EventType.ADDED]
    assert names(records, EVENTS) == ["a", "b", "c"]
    assert records.local_writes() == []
    write(records, event_of("d"))
    (gone,) = records.settle_locally(records.local_writes()[0].seq)
    assert (gone.type, names(records, EVENTS)) == (EventType.DELETED, ["a", "b", "c"])


def test_local_writes_survive_a_restart(tmp_path: Path) -> None:
    database, records = open_records(tmp_path / "edge.db")
    records.apply([batch(1, RUNNING)], 0)
    write(records, patch_of(RUNNING.key, FAILED))
    before, revision = records.local_writes(), records.revision
    database.close()
    database, records = open_records(tmp_path / "edge.db")
    assert (records.local_writes(), records.revision) == (before, revision)
    assert status(records)["phase"] == "Failed"
    database.close()


PHASES = st.sampled_from(["Running", "Failed", "Succeeded"])
STEPS = st.one_of(
    st.tuples(st.just("push"), st.sampled_from("ab"), st.sampled_from(["u", "v"]), PHASES),
    st.tuples(st.just("remove"), st.sampled_from("ab")),
    st.tuples(st.just("write"), st.sampled_from("ab"), PHASES),
    st.tuples(st.just("settle")),
)


@given(st.lists(STEPS, max_size=25))
def test_whatever_happens_a_watcher_knows_what_a_reader_sees(steps: list[Any]) -> None:
    """The store's contract, local writes and all: a list, and the changes after it, are the next list."""
    directory = tempfile.TemporaryDirectory()
    database, records = open_records(Path(directory.name) / "edge.db")
    known: dict[ObjectKey, tuple[bytes, int]] = {}
    for number, step in enumerate(steps):
        match step:
            case ("push", name, uid, phase):
                changes = records.apply([batch(number, pushed(PODS, name, uid, status={"phase": phase}))], 0).changes
            case ("remove", name):
                changes = records.apply([batch(number, removal(pushed(PODS, name)))], 0).changes
            case ("write", name, phase):
                look = records.look(ObjectKey(PODS, "default", name))
                if look.held is None or look.seen is None:
                    continue
                wanted = look.seen.object.parse() | {"status": {"phase": phase}}
                patch = strategic.diff(look.held.object.parse(), wanted)
                made = patch_of(look.held.object.key, patch, uid=look.held.object.version.uid)
                changes = records.write_locally(made, look.seen.revision) or []
            case _:
                writes = records.local_writes()
                changes = records.settle_locally(writes[0].seq) if writes else []
        for change in changes:
            if change.type is EventType.DELETED:
                del known[change.object.key]
            else:
                assert (change.object.key in known) is (change.type is EventType.MODIFIED)
                known[change.object.key] = (change.object.body, change.revision)
        found, revision = records.list(PODS, "", EVERYTHING, ALL_FIELDS, 0, None)
        assert {item.object.key: (item.object.body, item.revision) for item in found} == known
        assert revision == records.revision
    database.close()
    directory.cleanup()


def test_what_is_not_written_is_given_as_it_is() -> None:
    held = StoredObject(from_json(PODS, body(PODS, "web")), 7)
    assert shown(held, {}) is held
    assert shown(None, {}) is None
