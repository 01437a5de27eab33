"""Objects as rows: what is read is what was written. Secrets whose key is gone: test_metamanager_confidential.py."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from apimachinery.keys import ObjectKey
from apimachinery.objects import Object
from apimachinery.resources import CONFIG_MAPS, PODS, SECRETS
from componentbase.sealing import Keyring
from link.frames import Delta, Held
from metamanager.connection import Database
from metamanager.errors import KeyLost, StoreCorrupt
from metamanager.objectrows import ObjectRows
from metamanager.opening import open_records
from metamanager.overlay import StoredObject
from metamanager.resourcerows import ResourceRows
from tests.harness.store_history import upsert

KEYS, OTHERS = Keyring([os.urandom(32)]), Keyring([os.urandom(32)])


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database, _ = open_records(tmp_path / "edge.db", keys=KEYS)
    yield database
    database.close()


def opened(database: Database, keys: Keyring = KEYS) -> tuple[ResourceRows, ObjectRows]:
    with database.transaction():
        resources = ResourceRows(database)
        return resources, ObjectRows(database, resources, keys)


def stored(delta: Delta, revision: int = 1) -> tuple[ObjectKey, StoredObject]:
    assert delta.version is not None
    return delta.key, StoredObject(Object(delta.key, delta.version, {}, delta.body), revision)


def write(database: Database, *deltas: Delta) -> dict[ObjectKey, StoredObject]:
    resources, rows = opened(database)
    latest = dict(map(stored, deltas))
    with resources.writing():
        assert rows.write(latest) == 0
    return latest


def test_what_is_read_is_what_was_written(database: Database) -> None:
    latest = write(database, upsert(PODS, "a", 1), upsert(PODS, "b", 2), upsert(SECRETS, "s", 3))
    resources, rows = opened(database)
    with database.transaction():
        assert {key: rows.get(key) for key in latest} == latest
        assert sorted(rows.held()) == sorted(Held(key, found.object.version) for key, found in latest.items())
        number = resources.find(PODS)
        assert number is not None
        assert [each.object.key.name for each in rows.select(PODS, number, "", None, ("", ""))] == ["a", "b"]
        assert [each.object.key.name for each in rows.select(PODS, number, "", None, ("default", "a"))] == ["b"]
        assert list(rows.select(PODS, number, "elsewhere", None, ("", ""))) == []
        assert (rows.count(), rows.resources()) == (3, sorted([PODS, SECRETS]))
        assert rows.get(ObjectKey(CONFIG_MAPS, "default", "a")) is None
        assert rows.write(dict.fromkeys(latest)) == 3
        assert rows.count() == 0


def test_a_body_that_is_not_what_was_written_is_not_given_out(database: Database) -> None:
    (key,) = write(database, upsert(PODS, "a", 1))
    with database.transaction():
        database.run("UPDATE objects SET body = ?", (b"{}",))
    _, rows = opened(database)
    with pytest.raises(StoreCorrupt, match="is not what was written"), database.transaction():
        rows.get(key)


def test_a_secret_whose_key_is_gone_is_not_held_until_it_is_written_anew(database: Database) -> None:
    secret, other = write(database, upsert(SECRETS, "s", 3), upsert(PODS, "a", 1))
    _, rows = opened(database, OTHERS)
    assert rows.lost == {secret}
    with database.transaction():
        assert (rows.get(secret), [each.key for each in rows.held()], rows.count()) == (None, [other], 1)
    rows.check_readable(other)
    with pytest.raises(KeyLost):
        rows.check_readable(secret)
    rows.replaced([secret])
    assert not rows.lost
