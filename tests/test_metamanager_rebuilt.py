"""Tests for metamanager.rebuilt, on the real store."""

import json
from pathlib import Path

import pytest

from apimachinery.keys import Node, ObjectKey
from apimachinery.resources import EVENTS
from metamanager.opening import mark_corrupt
from metamanager.rebuilt import REBUILT_DOCUMENT, Rebuilt, tell_rebuilt
from metamanager.store import Store
from tests.harness.store_history import report_of

NODE = Node("edge-1")


async def test_a_rebuild_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    store = await Store.open(path)
    assert not await tell_rebuilt(store, NODE)
    await store.save({}, [report_of(1)])
    await store.close()
    mark_corrupt(path)
    store = await Store.open(path)
    assert await tell_rebuilt(store, NODE)
    assert not await tell_rebuilt(store, NODE)
    (_, report), (_, event) = await store.pending_reports(0, 1 << 20)
    assert report == report_of(1)
    assert event.field == "event"
    assert event.key._replace(name="") == ObjectKey(EVENTS, "default", "")
    assert event.key.name.startswith("edge-1.")
    body = json.loads(event.value)
    assert (body["reason"], body["type"]) == ("StoreRebuilt", "Warning")
    assert body["involvedObject"] == {"apiVersion": "v1", "kind": "Node", "name": "edge-1", "uid": "edge-1"}
    assert body["message"].endswith(
        "begun anew, 1 reports were carried over, the damaged file is kept as edge.db.corrupt-1"
    )
    await store.close()


@pytest.mark.parametrize("note", [b"", b"[]", b'{"when":1}'])
async def test_a_note_of_another_release_is_taken_away(tmp_path: Path, note: bytes) -> None:
    store = await Store.open(tmp_path / "edge.db")
    await store.save({REBUILT_DOCUMENT: note}, [])
    assert not await tell_rebuilt(store, NODE)
    assert await store.documents() == {}
    assert await store.event_count() == 0
    await store.close()


def test_reports_that_could_not_be_read_are_said_so() -> None:
    rebuilt = Rebuilt("damaged", "edge.db.corrupt-1", 1_900_000_000_000, 3, whole=False)
    assert Rebuilt.from_bytes(rebuilt.to_bytes()) == rebuilt
    event = rebuilt.event(NODE, "0a")
    assert "some reports could not be read" in event.message
    assert event.first_at == "2030-03-17T17:46:40Z"
