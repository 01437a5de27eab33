"""Secrets on the disk: never plain, bound to their row, not given out without their key and not said to be gone."""

import os
import sqlite3
from pathlib import Path

import pytest

from apimachinery.inventory import digest
from apimachinery.keys import ObjectKey
from apimachinery.resources import CONFIG_MAPS, SECRETS
from apimachinery.selectors import ALL_FIELDS, EVERYTHING
from componentbase.sealing import OVERHEAD_BYTES, Keyring
from link.frames import Delta
from metamanager.confidential import is_confidential
from metamanager.errors import KeyLost, StoreCorrupt
from metamanager.interestrows import RememberedInterest
from metamanager.objectrows import row_checksum
from metamanager.opening import open_records
from metamanager.records import Records
from metamanager.store import Store
from tests.harness.store_history import batch, removal, told, upsert

KEYS, OTHERS = Keyring([os.urandom(32)]), Keyring([os.urandom(32)])


def secret(name: str, value: str) -> Delta:
    return upsert(SECRETS, name, value, uid=f"uid-{name}", tier="db")


def files(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_no_byte_of_a_secret_nor_its_digest_is_on_the_disk_and_clients_see_it(tmp_path: Path) -> None:
    values = [os.urandom(16).hex() for _ in range(4)]
    database, records = open_records(tmp_path / "edge.db", keys=KEYS)
    first, large = secret("a", values[0]), secret("b", values[1] * 2000)
    changed = secret("b", values[2] + values[1] * 2000)
    records.apply([batch(1, first, large, upsert(CONFIG_MAPS, "c", "plainly"))], 0)
    records.apply([batch(2, told(changed, large), secret("gone", values[3]))], 0)
    records.apply([batch(3, removal(secret("gone", "")), synced=True)], 0)
    found, _ = records.list(SECRETS, "", EVERYTHING, ALL_FIELDS, 0, None)
    assert [item.object.body for item in found] == [first.body, changed.body]
    assert found[0].object.labels == {"tier": "db"}
    assert {(each.key, each.version) for each in records.held()} >= {
        (first.key, first.version),
        (changed.key, changed.version),
    }
    assert records.digest() == digest(records.held())
    content = files(tmp_path)  # with the log, as a running process has it
    assert b"plainly" in content, "what is looked for would be found"
    assert first.version is not None
    for word in (*values, first.version.revision):
        assert word.encode() not in content
    database.close()
    assert not any(value.encode() in files(tmp_path) for value in values)
    database, records = open_records(tmp_path / "edge.db", keys=KEYS)
    held = records.get(changed.key)
    assert held is not None
    assert held.object.body == changed.body
    database.close()


def test_the_cost_of_a_secret_is_some_bytes(tmp_path: Path) -> None:
    database, records = open_records(tmp_path / "edge.db", keys=KEYS)
    delta = secret("a", "x")
    records.apply([batch(1, delta)], 0)
    database.close()
    with sqlite3.connect(tmp_path / "edge.db") as connection:
        (body,) = connection.execute("SELECT body FROM objects").fetchone()
    connection.close()
    assert len(body) == len(delta.body) + OVERHEAD_BYTES
    assert is_confidential(SECRETS)
    assert not is_confidential(CONFIG_MAPS)


@pytest.mark.parametrize("column", ["body", "version"])
def test_bytes_of_another_row_are_damage_also_with_a_right_checksum(tmp_path: Path, column: str) -> None:
    path = tmp_path / "edge.db"
    database, records = open_records(path, keys=KEYS)
    records.apply([batch(1, secret("a", "of a"), secret("b", "of b"))], 0)
    database.close()
    connection = sqlite3.connect(path)
    connection.execute(
        {
            "body": "UPDATE objects SET body = (SELECT body FROM objects WHERE name = 'b')",
            "version": "UPDATE objects SET version = (SELECT version FROM objects WHERE name = 'b')",
        }[column]
    )
    for name, uid, version, labels, body in connection.execute(
        "SELECT name, uid, version, labels, body FROM objects"
    ).fetchall():
        checksum = row_checksum(ObjectKey(SECRETS, "default", name), uid, version, labels, body)
        connection.execute("UPDATE objects SET checksum = ? WHERE name = ?", (checksum, name))
    connection.commit()
    connection.close()
    database, records = open_records(path, keys=KEYS)
    if column == "body":  # the version is looked at when opening, and the file then was begun anew
        with pytest.raises(StoreCorrupt, match="secrets/default/a"):
            records.get(ObjectKey(SECRETS, "default", "a"))
    else:
        assert records.count() == 0
    database.close()


@pytest.fixture
def lost(tmp_path: Path) -> Path:
    """A store with two Secrets and something else, and an interest in all Secrets."""
    path = tmp_path / "edge.db"
    database, records = open_records(path, keys=KEYS)
    records.apply([batch(7, secret("a", "1"), secret("b", "2"), upsert(CONFIG_MAPS, "c", 3), synced=True)], 5)
    records.interests.remember(
        [RememberedInterest(SECRETS, "", "", "", 1, True), RememberedInterest(CONFIG_MAPS, "", "", "", 1, True)]
    )
    database.close()
    return path


def names(records: Records) -> list[str]:
    return sorted(held.key.name for held in records.held())


def test_without_their_key_secrets_are_neither_given_out_nor_said_to_be_gone_and_the_rest_stays(
    lost: Path, caplog: pytest.LogCaptureFixture
) -> None:
    database, records = open_records(lost, keys=OTHERS)
    assert "asked of the cloud again" in caplog.text
    assert (records.lost_count, records.count(), names(records)) == (2, 1, ["c"])
    assert records.cursor is None, "so that the hub asks what is held"
    assert records.synced_at_ms == 5, "so that everything else is served"
    assert [each.complete for each in sorted(records.interests.all())] == [True, False]
    with pytest.raises(KeyLost, match=r"secrets/default/a cannot be read.*put the key back"):
        records.get(secret("a", "").key)
    with pytest.raises(KeyLost):
        records.list(SECRETS, "", EVERYTHING, ALL_FIELDS, 0, None)
    assert len(records.list(CONFIG_MAPS, "", EVERYTHING, ALL_FIELDS, 0, None)[0]) == 1
    # The hub sends one of them; until it said that this is all, the other may still come.
    changes = records.apply([batch(1, secret("a", "1"))], 6).changes
    assert [change.type.value for change in changes] == ["ADDED"]
    assert (records.lost_count, names(records)) == (1, ["a", "c"])
    records.apply([batch(2, synced=True)], 7)
    assert (records.lost_count, records.count()) == (0, 2)
    assert records.get(secret("b", "").key) is None
    database.close()


def test_a_key_that_comes_back_opens_everything_again(lost: Path) -> None:
    database, _ = open_records(lost, keys=OTHERS)
    database.close()
    database, records = open_records(lost, keys=KEYS)
    assert (records.lost_count, names(records)) == (0, ["a", "b", "c"])
    database.close()


async def test_the_store_says_how_many_cannot_be_read(lost: Path) -> None:
    store = await Store.open(lost, keys=OTHERS)
    assert await store.lost_count() == 2
    with pytest.raises(KeyLost):
        await store.get(secret("a", "").key)
    assert (await store.look(secret("a", "").key)).held is None
    await store.close()
