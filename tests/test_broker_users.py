"""The broker's users: what is written, what is read back, what is refused, and how a running broker follows."""

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devicetwin.broker.access import Account
from devicetwin.broker.users import UserFile, UsersError, changing, hashed, is_right, load


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mqtt-users.json"


def write(path: Path, content: object) -> None:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)


def add(path: Path, name: str, password: str, **rights: Any) -> Account:
    account = Account(name=name, password=hashed(password), **rights)
    with changing(path) as users:
        users[name] = account
    return account


def test_a_password_is_right_or_wrong_and_never_in_the_file(path: Path) -> None:
    account = add(path, "modbus", "correct horse")
    assert is_right(account, b"correct horse")
    assert not is_right(account, b"correct horsf")
    assert not is_right(None, b"correct horse")
    assert "correct" not in path.read_text()
    assert account.password != hashed("correct horse"), "salted"


@pytest.mark.parametrize(
    "stored", ["", "clear text", "md5$1$1$1$a$b", "scrypt$x$8$1$a$b", "scrypt$1073741824$8$1$YQ==$YQ=="]
)
def test_a_stored_password_that_makes_no_sense_lets_nobody_in(stored: str) -> None:
    assert not is_right(Account(name="a", password=stored), b"clear text")


def test_passwords_have_bounds() -> None:
    with pytest.raises(UsersError, match="8 characters"):
        hashed("short")
    with pytest.raises(UsersError, match="1024 bytes"):
        hashed("x" * 1025)
    assert not is_right(Account(name="a", password=hashed("x" * 1024)), b"x" * 65535)


def test_what_was_written_is_read_back_and_is_the_owners_alone(path: Path) -> None:
    one = add(path, "one", "password1", mapper=True, devices=("default/lamp",), topics=("a/#",))
    two = add(path, "two", "password2")
    assert load(path) == {"one": one, "two": two}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_not_there_has_no_users(path: Path) -> None:
    assert load(path) == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "no file of users"),
        ([], "no file of users"),
        ({}, "no file of users"),
        ({"users": []}, "no file of users"),
        ("[" * 100_000, "no file of users"),
        ({"users": {"a b": {"password": "x"}}}, '"a b" is no name'),
        ({"users": {"a": 1}}, "a: must be an object"),
        ({"users": {"a": {}}}, "a: password must be"),
        ({"users": {"a": {"password": "x", "mapper": "yes"}}}, "mapper true or false"),
        ({"users": {"a": {"password": "x", "devices": "default/a"}}}, "lists of texts"),
        ({"users": {"a": {"password": "x", "devices": ["a"]}}}, "NAMESPACE/NAME"),
        ({"users": {"a": {"password": "x", "admin": True}}}, "unknown member admin"),
        ('{"users": {}}' + " " * (4 << 20), "larger than"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(path: Path, content: object, says: str) -> None:
    write(path, content)
    with pytest.raises(UsersError, match=says) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


def test_a_file_that_others_can_read_is_refused(path: Path) -> None:
    write(path, {"users": {}})
    path.chmod(0o640)
    with pytest.raises(UsersError, match="chmod 600"):
        load(path)


def test_what_goes_wrong_in_a_change_changes_nothing(path: Path) -> None:
    one = add(path, "one", "password1")

    def fail() -> None:
        with changing(path) as users:
            users.clear()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert load(path) == {"one": one}


def test_two_changes_at_once_are_both_kept(path: Path) -> None:
    threads = [threading.Thread(target=add, args=(path, f"user-{n}", "password1")) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(load(path)) == {f"user-{n}" for n in range(6)}


# ---- as a running broker sees it


def test_a_running_broker_follows_the_file(path: Path) -> None:
    users = UserFile(path, anonymous=False)
    assert users.access.users == {}
    assert users.changed() is None
    one = add(path, "one", "password1")
    found = users.changed()
    assert found is not None
    assert (found.users, found.anonymous) == ({"one": one}, False)
    assert users.changed() is None
    path.unlink()
    assert users.changed() is not None
    assert users.access.users == {}


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{"), lambda path: os.chmod(path, 0o644)])
def test_a_file_that_is_spoilt_changes_nothing_and_is_said_once(
    path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    one = add(path, "one", "password1")
    users = UserFile(path, anonymous=True)
    spoil(path)
    assert users.changed() is None
    assert users.changed() is None
    assert users.access.users == {"one": one}
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_spoilt_file_is_an_error_at_the_start(path: Path) -> None:
    write(path, "{")
    with pytest.raises(UsersError):
        UserFile(path, anonymous=True)


def test_a_password_that_was_right_is_known_until_it_changes(path: Path) -> None:
    one = add(path, "one", "password1")
    add(path, "two", "password2")
    users = UserFile(path, anonymous=True)
    assert users.recall("one", b"password1") is None
    assert users.verifier("one", b"wrong")() is None
    assert users.verifier("nobody", b"password1")() is None
    assert users.verifier("one", b"password1")() == one
    users.remember(one, b"password1")
    assert users.recall("one", b"password1") == one
    assert users.recall("one", b"password2") is None
    assert users.recall("two", b"password1") is None
    add(path, "two", "password3")
    assert users.changed()
    assert users.recall("one", b"password1") == one
    add(path, "one", "password4")
    assert users.changed()
    assert users.recall("one", b"password1") is None
    users.remember(one, b"password1")  # verified when it had changed already
    assert users.recall("one", b"password1") is None
