"""What `cloudcore ca` prints and refuses, of CAs and names that are kept in memory."""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apimachinery.errors import ApiError, Conflict, NotFound
from apimachinery.keys import Node
from apimachinery.resources import NODES
from cloudhub import cacommand, cas
from cloudhub.cas import Ca
from cloudhub.identities import EDGE_LABEL
from cloudhub.roster import Identity
from cloudhub.settings import WINDOW_S
from cloudhub.vault import Vault
from componentbase import pki
from componentbase.cli import CommandError
from componentbase.words import rfc3339
from tests.harness.objects import MemoryObjects

NOW = datetime.now(UTC)
YEAR = timedelta(days=365)
FIRST = Ca.of(pki.create_ca("fairlead", 3650))
SECOND = Ca.of(pki.create_ca("fairlead-2", 3650, 1), "fairlead-ca-2", NOW)


async def command(objects: MemoryObjects, *words: str) -> None:
    parser = argparse.ArgumentParser()
    cacommand.add_parser(parser.add_subparsers())
    await cacommand.act(parser.parse_args(["ca", *words]), objects)


def who(ca: Ca | None, expires: datetime = NOW + YEAR, *, is_confirmed: bool = True) -> Identity:
    return Identity("key", expires, "", {}, "" if ca is None else ca.pin, "former", is_confirmed)


def test_who_needs_the_first_ca_is_whoever_may_still_come_back_with_nothing_else() -> None:
    window = timedelta(seconds=WINDOW_S)
    identities: dict[Node, Identity | None] = {
        Node("old"): who(FIRST),
        Node("older"): who(None),
        Node("new"): who(SECOND),
        Node("unheard"): who(SECOND, is_confirmed=False),
        Node("lapsed"): who(FIRST, NOW - window + timedelta(minutes=1)),
        Node("gone"): who(FIRST, NOW - window),
        Node("damaged"): who(None, datetime.max.replace(tzinfo=UTC)),
        Node("unwritten"): None,
    }
    assert cacommand.needing([FIRST, SECOND], identities, NOW, window) == [
        "damaged",
        "lapsed",
        "old",
        "older",
        "unheard",
        "unwritten",
    ]
    shorter = cacommand.needing([FIRST, SECOND], identities, NOW, timedelta(0))
    assert "lapsed" not in shorter, "it renews no more"
    told = cacommand.lines([FIRST, SECOND], identities, NOW, window)
    assert [line.split()[:4] for line in told[1:3]] == [
        ["fairlead-ca", rfc3339(FIRST.expires), "no", "more"],
        ["fairlead-ca-2", rfc3339(SECOND.expires), "yes", "2"],
    ]
    assert told[-1] == "needing fairlead-ca still: damaged, lapsed, old, older, unheard, unwritten"
    many: dict[Node, Identity | None] = {Node(f"n-{number:03}"): who(FIRST) for number in range(30)}
    assert cacommand.lines([FIRST, SECOND], many, NOW, window)[-1].endswith("n-019 and 10 more")


async def test_a_rotation_is_begun_once_and_finished_when_nobody_needs_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects = MemoryObjects()
    with pytest.raises(NotFound, match="there is no CA yet"):
        await command(objects, "rotate")
    await command(objects, "list")
    assert "there is no CA yet" in capsys.readouterr().out
    await cas.load_or_make(Vault(objects))
    for flag, said in (("--finish", "no rotation to finish"), ("--force", "--force is for --finish")):
        with pytest.raises(CommandError, match=said):
            await command(objects, "rotate", flag)
    await command(objects, "rotate")
    assert "fairlead-ca-2 is trusted by hubs from now on and signs from" in capsys.readouterr().out
    refused: list[tuple[tuple[str, ...], type[ApiError | CommandError], str]] = [
        (("rotate",), Conflict, "a rotation is under way"),
        (("rotate", "--finish", "--force"), CommandError, "wait until then"),
    ]
    for words, error, said in refused:
        with pytest.raises(error, match=said):
            await command(objects, *words)
    await command(objects, "list")
    assert "nobody needs the first one" in capsys.readouterr().out


async def test_a_node_that_joined_before_names_were_written_down_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects, file = MemoryObjects(), tmp_path / "cloudcore.yaml"
    file.write_text("join: {renewalWindowSeconds: 0}\n")
    await cas.load_or_make(Vault(objects))
    await cas.begin(Vault(objects), NOW)
    for name, labels in (("edge-1", {EDGE_LABEL: ""}), ("worker-1", {})):
        await objects.create(NODES, "", {"metadata": {"name": name, "labels": labels}})
    with pytest.raises(CommandError, match="1 node has no certificate of fairlead-ca-2 yet: edge-1"):
        await command(objects, "rotate", "--finish", "--config", str(file))
    await command(objects, "list")
    assert capsys.readouterr().out.splitlines()[-1] == "needing fairlead-ca still: edge-1"
    await command(objects, "rotate", "--finish", "--force")
    assert "these join again: edge-1" in capsys.readouterr().out
