"""Databases with Secrets that are plain or under an older key: afterwards nothing else of them is in any file."""

import json
import os
from pathlib import Path

import pytest

from apimachinery.resources import CONFIG_MAPS, SECRETS
from componentbase.sealing import Keyring
from metamanager import statements
from metamanager.connection import Database
from metamanager.migrations import MIGRATIONS, SEALED_SCHEMA, migrate
from metamanager.objectrows import row_checksum
from metamanager.opening import mark_corrupt, open_records, rotate
from metamanager.rebuilt import REBUILT_DOCUMENT, Rebuilt
from metamanager.records import Records
from metamanager.resealing import may_hold_plain
from metamanager.secretkeys import KeyFileError, Place, make_keys
from tests.harness.small_disk import SmallDisk
from tests.harness.store_history import batch, upsert

OLD, NEW = os.urandom(32), os.urandom(32)
ROOM_BYTES = 320 << 10  # enough to write the Secrets anew, and not the file
VALUES = [os.urandom(12).hex() for _ in range(30)]


def plain_store(path: Path) -> None:
    """What the release before wrote: Secrets among other things, some changed since, in the file and in its log."""
    database = Database(path)
    with database.transaction():
        migrate(database.run, 0, MIGRATIONS[: SEALED_SCHEMA - 1])
        database.run(statements.INSERT_STATE, (1, 1000))
        database.run(statements.UPDATE_STATE, (1000, "epoch", 3, 5, "{}"))
        ids = {each: database.inserted(statements.INSERT_RESOURCE, tuple(each)) for each in (SECRETS, CONFIG_MAPS)}
    for number, value in enumerate(VALUES):
        if number == 15:  # so that the file has some and the log others
            database.close()
            database = Database(path)
        for resource in (SECRETS, CONFIG_MAPS):
            text = value * 300 if resource == SECRETS else "elsewhere"
            delta = upsert(resource, f"s{number % 20}", text, tier="db")
            assert delta.version is not None
            uid, version = delta.version
            labels = json.dumps({"tier": "db"})
            checksum = row_checksum(delta.key, uid, version, labels, delta.body)
            row = (ids[resource], *delta.key[1:], uid, version, 1000, labels, checksum, delta.body)
            with database.transaction():
                database.run(statements.UPSERT_OBJECT, row)
    # Closed as a SIGKILL would: the log stays.
    for suffix in ("", "-wal"):
        name = path.name + suffix
        path.with_name(f"{name}.kept").write_bytes(path.with_name(name).read_bytes())
    database.close()
    for suffix in ("", "-wal"):
        path.with_name(f"{path.name}{suffix}.kept").rename(path.with_name(path.name + suffix))


def found_in(directory: Path) -> set[str]:
    """Values that stand in any file."""
    content = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    return {value for value in VALUES if value.encode() in content}


def held(records: Records) -> dict[str, str]:
    return {
        each.key.name: json.loads(item.object.body)["data"]["value"][:24]
        for each in records.held()
        if each.key.resource == SECRETS and (item := records.get(each.key)) is not None
    }


WANTED = {f"s{number % 20}": value for number, value in enumerate(VALUES)}


def test_secrets_of_a_former_release_are_encrypted_and_gone_from_every_file(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    plain_store(path)
    assert found_in(tmp_path) == set(VALUES)
    aside = tmp_path / "edge.db.corrupt-1"
    aside.write_bytes(path.read_bytes())
    database, records = open_records(path, keys=Keyring([NEW]))
    assert held(records) == WANTED
    assert records.cursor is not None, "nothing is asked of the hub"
    assert found_in(tmp_path) == set(), "database, log and a damaged file that was kept; edgecore runs"
    database.close()
    assert not aside.exists()
    database, records = open_records(path, keys=Keyring([NEW]))
    assert (held(records), len(records.held())) == (WANTED, 40)
    database.close()


def test_a_full_disk_puts_the_last_step_off_and_not_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with SmallDisk(2) as disk:
        if not disk.is_mounted:
            pytest.skip("only root can mount a disk that has room for the one step and not for the other")
        path = disk.path / "edge.db"
        plain_store(path)
        filler = disk.path / "filler"
        free = os.statvfs(disk.path)
        filler.write_bytes(bytes(free.f_bavail * free.f_bsize - ROOM_BYTES))
        database, records = open_records(path, keys=Keyring([NEW]))
        assert "there was no room" in caplog.text
        assert held(records) == WANTED
        database.close()
        filler.unlink()
        caplog.clear()
        database, records = open_records(path, keys=Keyring([NEW]))
        assert "there was no room" not in caplog.text
        assert held(records) == WANTED
        assert found_in(disk.path) == set()
        database.close()


def test_a_damaged_file_of_a_former_release_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    plain_store(path)
    mark_corrupt(path)
    database, records = open_records(path, keys=Keyring([NEW]))
    note = Rebuilt.from_bytes(records.outbox.documents("")[REBUILT_DOCUMENT])
    assert note.aside == ""
    assert found_in(tmp_path) == set()
    database.close()
    mark_corrupt(path)
    database, _ = open_records(path, keys=Keyring([NEW]))
    database.close()
    assert (tmp_path / "edge.db.corrupt-1").exists(), "one of this release is"


def test_what_may_hold_plain_secrets_is_told_by_the_header_and_by_the_content(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    database, records = open_records(path, keys=Keyring([NEW]))
    records.apply([batch(1, upsert(SECRETS, "s", "x"), upsert(CONFIG_MAPS, "c", '"kind":"Secret"'))], 0)
    database.close()
    assert not may_hold_plain(path)
    path.write_bytes(b"garbage" + path.read_bytes()[7:])
    assert not may_hold_plain(path)
    path.write_bytes(path.read_bytes() + upsert(SECRETS, "s", "x").body)
    assert may_hold_plain(path)
    path.write_bytes(b"")
    assert not may_hold_plain(path)
    assert may_hold_plain(tmp_path / "none")


def test_secrets_under_an_older_key_come_under_the_newest(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    database, records = open_records(path, keys=Keyring([OLD]))
    records.apply([batch(1, *(upsert(SECRETS, name, value) for name, value in WANTED.items()))], 0)
    before = records.digest()
    database.close()
    database, records = open_records(path, keys=Keyring([NEW, OLD]))
    assert (held(records), records.digest()) == (WANTED, before)
    database.close()
    database, records = open_records(path, keys=Keyring([NEW]))
    assert (held(records), records.lost_count) == (WANTED, 0)
    database.close()
    assert found_in(tmp_path) == set()


def test_rotation_leaves_one_new_key_and_the_same_secrets(tmp_path: Path) -> None:
    path, place = tmp_path / "edge.db", Place(tmp_path / "key", True)
    database, records = open_records(path, keys=make_keys(place.path))
    records.apply([batch(1, upsert(SECRETS, "s", VALUES[0]))], 0)
    database.close()
    former = place.path.read_text()
    rotate(path, place)
    lines = [line for line in place.path.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 1
    assert lines[0] not in former
    database, records = open_records(path, keys=make_keys(place.path))
    assert held(records) == {"s": VALUES[0]}
    database.close()
    with pytest.raises(KeyFileError, match="systemd"):
        rotate(path, place._replace(is_ours=False))
