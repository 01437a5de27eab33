"""`edgecore device history` on the file of a node that is stopped; the rest: test_devices_end_to_end.py."""

import json
from pathlib import Path

import pytest

from metamanager.store import Store
from tests.harness.edgecommand import edgecore

HISTORY = ("device", "history", "thermo-1", "temperature", "--data-dir")


def test_a_directory_without_a_store_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert edgecore(*HISTORY, str(tmp_path)) == 1
    assert f"{tmp_path} is not a node's directory: there is no edge.db" in capsys.readouterr().err


async def test_the_file_of_a_stopped_node_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await (await Store.open(tmp_path / "edge.db")).close()
    assert edgecore(*HISTORY, str(tmp_path), "--output", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["name"], facts["property"], facts["samples"]) == ("thermo-1", "temperature", [])
