"""`edgecore join` before and after it speaks with the hub: where its token is from, and where that goes."""

from pathlib import Path

import pytest

from edgecore import joincommand
from edgecore.commandline import new_parser
from tests.harness.edgecommand import edgecore

JOIN = ("join", "--cloud", "127.0.0.1:1", "--node", "edge-1")


def token_of(tmp_path: Path, *flags: str) -> str:
    return joincommand._token(new_parser().parse_args([*JOIN, "--data-dir", str(tmp_path), *flags]))


def test_a_token_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" abc.def \nwhat follows\n")
    assert token_of(tmp_path, "--token-file", str(file)) == "abc.def"
    assert token_of(tmp_path, "--token", "ghi") == "ghi"
    joincommand._wipe(file)
    assert not file.exists()


def test_a_file_that_stays_is_told_and_keeps_no_node_from_joining(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    joincommand._wipe(tmp_path / "gone")
    assert [record.message for record in caplog.records] == ["the token's file is still there, remove it"]


@pytest.mark.parametrize(("content", "why"), [(None, "No such file or directory"), (b"\xff\xfe", "no text")])
def test_a_file_that_is_no_token_is_refused(
    content: bytes | None, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    assert edgecore(*JOIN, "--data-dir", str(tmp_path / "home"), "--token-file", str(file)) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f"edgecore: error: cannot read {file}: {why}"
    assert not (tmp_path / "home").exists()
