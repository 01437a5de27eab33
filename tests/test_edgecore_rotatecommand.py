"""`edgecore rotate-secrets-key`, on the file of a node that is stopped; the rest: test_secrets_end_to_end.py."""

from pathlib import Path

import pytest

from componentbase.files import lock_dir
from tests.harness.edgecommand import edgecore


def test_a_key_is_replaced_while_nobody_uses_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, key = tmp_path / "home", tmp_path / "keys"
    home.mkdir()
    (home / "edgecore.yaml").write_text("node: n\ncloud: {link: 'hub:1'}\n")
    rotate = ("rotate-secrets-key", "--data-dir", str(home), "--secrets-key", str(key))
    assert edgecore(*rotate) == 0
    assert f"in {key}; the old one is forgotten" in capsys.readouterr().out
    first = key.read_text()
    with lock_dir(home):
        assert edgecore(*rotate) == 1
    assert key.read_text() == first, "of a node that runs"
    assert edgecore(*rotate) == 0
    assert key.read_text() != first
