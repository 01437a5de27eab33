"""What `cloudcore token` prints, of tokens that are kept in memory."""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apimachinery.keys import Node
from cloudhub import tokencommand
from cloudhub.tokens import Grant, Token, Tokens, Uses
from cloudhub.vault import Vault
from componentbase.cli import CommandError
from tests.harness.objects import MemoryObjects
from tests.test_cloudcore import run

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


async def command(objects: MemoryObjects, *words: str) -> None:
    parser = argparse.ArgumentParser()
    tokencommand.add_parser(parser.add_subparsers())
    await tokencommand.act(parser.parse_args(["token", *words]), objects)


async def test_what_is_asked_for_is_granted_and_only_the_text_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    objects = MemoryObjects()
    flags = ("--ttl", "1h", "--nodes", "rack7-*", "--single-use", "--replace", "--labels", "site=berlin,rack=7")
    await command(objects, "create", *flags)
    printed = capsys.readouterr().out
    now, node = datetime.now(UTC), Node("rack7-1")
    found = (await Tokens(Vault(objects)).check(printed.strip(), node, now)).token
    assert found.grant == Grant("rack7-*", True, True, {"site": "berlin", "rack": "7"})
    assert timedelta(minutes=59) < found.expires - now <= timedelta(hours=1)
    await command(objects, "list")
    listed = capsys.readouterr().out
    assert printed.split(".")[2] not in listed
    assert "rack7-*, may replace" in listed
    await command(objects, "delete", found.id)
    assert await Tokens(Vault(objects)).list() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "--nodes", "A_"), "cannot be a node name"),
        (("create", "--replace"), "--replace needs --nodes"),
        (("create", "--labels", "site"), "write KEY=VALUE,KEY=VALUE"),
        (("create", "--ttl", "999d"), "lifetime"),
        (("delete", "no"), "there is no such token"),
        (("delete", "aaaaaaaa"), "not found"),
    ],
)
async def test_what_cannot_be_done_is_said(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        await command(MemoryObjects(), *words)


def test_a_list_shows_all_but_the_secret() -> None:
    uses = Uses(1, NOW - timedelta(hours=1), Node("edge-7"), "f00")
    table = tokencommand.lines(
        [
            Token("aaaaaaaa", NOW, Grant()),
            Token("bbbbbbbb", NOW + timedelta(days=1), Grant("edge-*", True, True, {"a": "b", "c": ""}), uses),
            Token("cccccccc", NOW + timedelta(days=1), Grant(), uses._replace(times=12), "new"),
            Token("dddddddd", NOW + timedelta(days=1), Grant(), None, "dropped"),
        ],
        NOW,
        ["new"],
    )
    assert table == [
        "ID         UNTIL                  NODES                 USES     LAST USE                         LABELS",
        "aaaaaaaa   expired                any                   0",
        "bbbbbbbb   2026-11-24T12:00:00Z   edge-*, may replace   1 of 1   2026-11-23T11:00:00Z by edge-7   a=b,c=",
        "cccccccc   2026-11-24T12:00:00Z   any                   12       2026-11-23T11:00:00Z by edge-7",
        "dddddddd   its CA was dropped     any                   0",
    ]


def test_a_kubeconfig_that_is_not_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("token", "list", "--kubeconfig", str(tmp_path / "none")) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "h", "1", "1w", "-1h", "1.5h", "9999999999d"])
def test_a_lifetime_that_is_none_is_wrong_usage(text: str) -> None:
    assert run("token", "create", f"--ttl={text}") == 2
