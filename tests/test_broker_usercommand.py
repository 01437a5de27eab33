"""`edgecore mqtt user`, as a person types it."""

import io
import stat
import sys
from pathlib import Path

import pytest

from componentbase import config
from componentbase.endpoints import Endpoint
from devicetwin.broker.users import is_right, load
from edgecore.__main__ import main
from edgecore.settings import CloudConfig, EdgeConfig


@pytest.fixture
def node(tmp_path: Path) -> Path:
    settings = EdgeConfig(node="edge-1", cloud=CloudConfig(link=Endpoint("hub.example", 10000)))
    (tmp_path / "edgecore.yaml").write_text(config.dump(settings))
    return tmp_path


def run(node: Path, *arguments: str, stdin: str = "") -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["edgecore", "mqtt", "user", *arguments, "--data-dir", str(node)])
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_a_made_password_is_shown_once_and_is_the_right_one(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(node, "add", "modbus", "--mapper") == 0
    password = capsys.readouterr().out.strip()
    account = load(node / "mqtt-users.json")["modbus"]
    assert len(password) == 24
    assert account.mapper
    assert is_right(account, password.encode())
    assert stat.S_IMODE((node / "mqtt-users.json").stat().st_mode) == 0o600


def test_a_given_password_is_read_and_not_shown(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rights = ("--device", "default/lamp", "--device", "yard/*", "--topic", "zigbee2mqtt/#")
    assert run(node, "add", "display", *rights, "--password-stdin", stdin="my own password\n") == 0
    assert capsys.readouterr().out == ""
    account = load(node / "mqtt-users.json")["display"]
    assert is_right(account, b"my own password")
    assert (account.mapper, account.devices, account.topics) == (
        False,
        ("default/lamp", "yard/*"),
        ("zigbee2mqtt/#",),
    )


def test_users_are_listed_and_deleted(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(node, "add", "modbus", "--mapper")
    run(node, "add", "display", "--device", "default/lamp")
    capsys.readouterr()
    assert run(node, "list") == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["display", "observer", "default/lamp"],
        ["modbus", "mapper", "all", "devices"],
    ]
    assert run(node, "delete", "modbus") == 0
    assert set(load(node / "mqtt-users.json")) == {"display"}


@pytest.mark.parametrize(
    ("arguments", "stdin", "says"),
    [
        (("add", "a/b"), "", '"a/b" is no name of a user'),
        (("add", "a", "--device", "lamp"), "", 'a: "lamp" is not NAMESPACE/NAME'),
        (("add", "a", "--topic", "$hw/#"), "", "begin with $"),
        (("add", "a", "--password-stdin"), "short\n", "8 characters"),
        (("delete", "nobody"), "", "there is no user nobody; there are: none"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_written(
    node: Path, arguments: tuple[str, ...], stdin: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(node, *arguments, stdin=stdin) == 1
    assert says in capsys.readouterr().err
    assert not (node / "mqtt-users.json").exists()


def test_a_directory_that_is_no_nodes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "list") == 1
    assert "edgecore join" in capsys.readouterr().err
