"""What `cloudcore node` does, to names that are kept in memory."""

import argparse
from datetime import UTC, datetime

import pytest

from apimachinery.errors import Invalid, NotFound
from apimachinery.keys import Node
from apimachinery.resources import NODES
from cloudhub import nodecommand
from cloudhub.roster import MAX_REASON, Ban, Identity, Listed
from componentbase.cli import CommandError
from tests.harness.objects import MemoryObjects

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


async def command(objects: MemoryObjects, *words: str) -> None:
    parser = argparse.ArgumentParser()
    nodecommand.add_parser(parser.add_subparsers())
    await nodecommand.act(parser.parse_args(["node", *words]), objects)


async def test_a_name_is_banned_listed_and_let_in_again(capsys: pytest.CaptureFixture[str]) -> None:
    objects = MemoryObjects()
    await command(objects, "ban", "edge-1", "--reason", " stolen ")
    assert "nobody has this name yet" in capsys.readouterr().out
    await command(objects, "list")
    assert capsys.readouterr().out.splitlines()[-1].endswith("Z stolen")
    await command(objects, "unban", "edge-1")
    with pytest.raises(NotFound, match="edge-1 is not banned"):
        await command(objects, "unban", "edge-1")


async def test_whoever_has_the_name_is_said_to_be_disconnected(capsys: pytest.CaptureFixture[str]) -> None:
    objects = MemoryObjects()
    await objects.create(NODES, "", {"metadata": {"name": "edge-1"}})
    await command(objects, "ban", "edge-1")
    assert capsys.readouterr().out.startswith("node edge-1 is banned: it is disconnected now")


async def test_what_cannot_be_a_name_or_a_reason_is_refused() -> None:
    objects = MemoryObjects()
    with pytest.raises(Invalid, match="cannot be a node name"):
        await command(objects, "ban", "Edge_1")
    for reason in ("two\nlines", "x" * (MAX_REASON + 1)):
        with pytest.raises(CommandError, match="one line of at most 150"):
            await command(objects, "ban", "edge-1", "--reason", reason)
    assert objects.kept == {}


def test_a_list_says_who_has_a_name_and_who_may_not() -> None:
    names = [
        Listed(Node("a"), Identity("k", NOW, "aaaaaaaa", {}), None),
        Listed(Node("b"), None, Ban("2026-11-23T12:00:00+00:00", "a\x1b[2J")),
        Listed(Node("c"), None, Ban("", "")),
    ]
    assert nodecommand.lines(names, NOW) == [
        "NODE   CERTIFICATE UNTIL             TOKEN      BANNED",
        "a      lapsed 2026-11-23T12:00:00Z   aaaaaaaa",
        "b                                               2026-11-23T12:00:00+00:00 a\\x1b[2J",
        "c                                               yes",
    ]
