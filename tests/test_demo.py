"""The demo's command line; what it starts is in test_demo_play.py."""

from pathlib import Path

import pytest

from demo.__main__ import main


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "python -m demo --data-dir" in capsys.readouterr().out


def test_an_unknown_flag_is_wrong_usage() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--nonsense"])
    assert caught.value.code == 2


def test_a_directory_of_no_use_ends_it_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["--data-dir", str(tmp_path / "file")]) == 1
    assert "is not a directory" in capsys.readouterr().err
