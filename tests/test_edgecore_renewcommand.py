"""`edgecore renew` where there is nothing to renew; the rest: test_rotation_end_to_end.py."""

from pathlib import Path

import pytest

from tests.harness.edgecommand import edgecore


def test_certificates_from_elsewhere_are_renewed_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edgecore.yaml").write_text("node: n\ncloud: {link: 'hub:1', certificate: other.crt}\n")
    assert edgecore("renew", "--data-dir", str(tmp_path)) == 1
    assert "other.crt is not what `edgecore join` made: renew it yourself" in capsys.readouterr().err


def test_certificates_that_are_gone_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "edgecore.yaml").write_text("node: n\ncloud: {link: 'hub:1'}\n")
    assert edgecore("renew", "--data-dir", str(tmp_path)) == 1
    assert f"the certificates in {tmp_path / 'pki'} cannot be used: " in capsys.readouterr().err
