"""`cloudcore token`, as far as it goes without an apiserver. The rest: test_end_to_end.py and test_bad_input.py."""

from pathlib import Path

import pytest

from tests.test_cloudcore import run


def test_a_kubeconfig_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("token", "list", "--kubeconfig", str(tmp_path / "none")) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "h", "1", "1w", "-1h", "1.5h", "9999999999d"])
def test_a_lifetime_that_is_none_is_wrong_usage(text: str) -> None:
    assert run("token", "create", f"--ttl={text}") == 2
