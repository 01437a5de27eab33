"""The flags of edgecore's commands."""

import argparse

import pytest

from edgecore.commandline import new_parser


def parsed(text: str) -> argparse.Namespace:
    return new_parser().parse_args(text.split())


@pytest.mark.parametrize(
    "words",
    [
        "run --data-dir d",
        "join --data-dir d --cloud hub:1 --token t --node n",
        "status --data-dir d",
        "resync --data-dir d",
        "renew --data-dir d",
        "rotate-secrets-key --data-dir d",
        "purge --data-dir d",
        "device history thermo temperature --data-dir d",
        "config --data-dir d",
        "mqtt user list --data-dir d",
    ],
)
def test_every_command_has_a_directory_and_says_how_it_logs(words: str) -> None:
    args = parsed(f"{words} --log-level debug --log-format json")
    assert (args.command, str(args.data_dir)) == (words.split()[0], "d")
    assert (args.log_level, args.log_format) == ("debug", "json")


def test_a_token_comes_from_one_place(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("join --data-dir d --cloud hub:1 --node n --token t --token-file f")
    assert "not allowed with argument" in capsys.readouterr().err
