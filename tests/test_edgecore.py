"""The edge's commands that need no cloud: configuration, clear refusals. The rest: test_end_to_end.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from componentbase import config
from edgecore.settings import EdgeConfig
from tests.harness.edgecommand import edgecore
from tests.house import ROOT


def test_config_prints_every_default_and_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert edgecore("config") == 0
    printed = capsys.readouterr().out
    assert "broker: embedded" in printed
    assert "listen: 127.0.0.1:10550" in printed
    assert config.parse(EdgeConfig, printed, "printed") == EdgeConfig()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("node: n\nmqqt: {}\n", 'edgecore.yaml:2: unknown key "mqqt", did you mean "mqtt"?'),
        ("node: n\n", "cloud.link is missing"),
        ("cloud: {link: 'hub:1'}\n", "node is missing"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place(
    text: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "edgecore.yaml").write_text(text)
    assert edgecore("run", "--data-dir", str(tmp_path)) == 1
    assert complaint in capsys.readouterr().err.splitlines()[-1]


def test_a_directory_nobody_joined_in_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgecore("run", "--data-dir", str(tmp_path)) == 1
    assert "run `edgecore join` first" in capsys.readouterr().err.splitlines()[-1]
    assert edgecore("status", "--data-dir", str(tmp_path)) == 1
    assert "is not running" in capsys.readouterr().err.splitlines()[-1]


def test_a_running_edgecore_has_no_command_but_its_own() -> None:
    code = "import json, sys, edgecore.__main__, edgecore.compose; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {name for name in json.loads(done.stdout) if name.startswith("edgecore.")}
    assert "edgecore.compose" in imported
    assert not {name for name in imported if name.endswith(("command", "statustext"))}
    heavy = {"apiserver", "cryptography", "metamanager", "msgpack", "sqlite3", "websockets"}
    assert not heavy & set(json.loads(done.stdout)), "import it where it is used"
