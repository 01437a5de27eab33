"""
`cloudcore ca list|rotate`: another certificate authority in the place of the one there is, without an outage.

`rotate` adds the second; hubs trust it within seconds, nodes hear of it, and each takes a certificate of the new one.
`rotate --finish` drops the first once nobody needs it. What stands in between is in the Secrets, so that it does not
matter who runs which, and where.
"""

import argparse
import datetime
from collections.abc import Mapping
from pathlib import Path

from apimachinery.keys import Node
from apimachinery.objects import lookup
from apimachinery.resources import NODES
from cloudhub import cas, credentials
from cloudhub.authority import CROSS_DAYS
from cloudhub.cas import Ca
from cloudhub.identities import EDGE_LABEL
from cloudhub.roster import Identity, Roster
from cloudhub.settings import load
from cloudhub.vault import Objects, Vault
from componentbase import cli
from componentbase.words import counted, rfc3339

AFTER = datetime.timedelta(minutes=2)
"""Until the new CA signs: four times as long as hubs take to hear of it (join.reloadSeconds)."""
NAMED = 20  # nodes that a refusal names; the rest are counted

_ROTATE = "cloudcore ca rotate\ncloudcore ca list\ncloudcore ca rotate --finish"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    ca = cli.add_command(commands, "ca", "Show and replace the certificate authority.", _ROTATE)
    actions = ca.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = cli.add_command(
        actions, "list", "List the CAs, and how many nodes have a certificate of each.", "cloudcore ca list"
    )
    rotate = cli.add_command(actions, "rotate", "Have another CA; with --finish, drop the former one.", _ROTATE)
    rotate.add_argument(
        "--after",
        type=cli.duration,
        default=AFTER,
        metavar="TIME",
        help="until it signs, by when all hubs must have looked; 2m by default",
    )
    rotate.add_argument("--finish", action="store_true", help="drop the former one; refused while nodes need it")
    rotate.add_argument("--force", action="store_true", help="drop it all the same: those nodes join again")
    for each in (listing, rotate):
        each.add_argument("--config", type=Path, metavar="FILE", help="cloudcore's, for join.renewalWindowSeconds")
        credentials.add_flag(each)
        cli.add_log_flags(each)


def run(args: argparse.Namespace) -> int:
    return credentials.run(args, act)


async def act(args: argparse.Namespace, objects: Objects) -> None:
    """Raises ApiError and CommandError."""
    now, vault = datetime.datetime.now(datetime.UTC), Vault(objects)
    window = datetime.timedelta(seconds=load(args.config).join.renewal_window_s)
    if args.action == "list":
        found = await cas.load(vault)
        print("\n".join(lines(found, await _holders(objects, found), now, window)))
    elif args.finish:
        found = await cas.load(vault)
        remaining = _may_finish(found, await _holders(objects, found), now, window, is_forced=args.force)
        await cas.drop_first(vault, found)
        print(f"{found[0].name} is dropped" + (f"; these join again: {_named(remaining)}" if remaining else ""))
        print(f"nodes believe hubs with certificates of it for {CROSS_DAYS} days more at most")
    else:
        if args.force:
            raise cli.CommandError("--force is for --finish")
        made = await cas.begin(vault, now + args.after)
        print(
            f"{made.name} is trusted by hubs from now on and signs from {rfc3339(made.signs_from)} on; nodes take "
            "certificates of it by themselves. See `cloudcore ca list`, then `cloudcore ca rotate --finish`"
        )


async def _holders(objects: Objects, found: list[Ca]) -> Mapping[Node, Identity | None]:
    """
    Who has which name; None for an edge node of the cluster of which nothing is written.

    That one joined before names were written down, and has a certificate of the first CA; renewing writes it down.
    """
    identities = await Roster(objects).identities()
    if len(found) < 2:
        return identities
    nodes = await objects.list_all(NODES, "", EDGE_LABEL)
    return {Node(str(lookup(each, "metadata.name"))): None for each in nodes} | dict(identities)


def _may_finish(
    found: list[Ca],
    identities: Mapping[Node, Identity | None],
    now: datetime.datetime,
    window: datetime.timedelta,
    *,
    is_forced: bool,
) -> list[Node]:
    """Who would have to join again. Raises CommandError where the first CA cannot be dropped."""
    if len(found) < 2:
        raise cli.CommandError("there is one CA and no rotation to finish: `cloudcore ca rotate` begins one")
    if now < found[-1].signs_from:
        raise cli.CommandError(f"{found[-1].name} signs from {rfc3339(found[-1].signs_from)} on: wait until then")
    remaining = needing(found, identities, now, window)
    if remaining and not is_forced:
        have = "has" if len(remaining) == 1 else "have"
        raise cli.CommandError(
            f"{counted(len(remaining), 'node')} {have} no certificate of {found[-1].name} yet: {_named(remaining)}. "
            "Those that are connected take one within hours, or at once by `edgecore renew`; with --force they join "
            "again"
        )
    return remaining


def needing(
    found: list[Ca], identities: Mapping[Node, Identity | None], now: datetime.datetime, window: datetime.timedelta
) -> list[Node]:
    """
    The nodes that know the first CA only, as far as is known, by name.

    Also one whose certificate has lapsed, for as long as it may renew (`window`), one that was sent a certificate of
    the new CA and has not said yet that it has it, and one of which nothing is written.
    """
    newest = found[-1].pin
    return sorted(
        node
        for node, each in identities.items()
        if each is None or (now < _plus(each.expires, window) and not (each.ca == newest and each.is_confirmed))
    )


def lines(
    found: list[Ca], identities: Mapping[Node, Identity | None], now: datetime.datetime, window: datetime.timedelta
) -> list[str]:
    """One for each CA, and one for what a rotation waits for."""
    if not found:
        return ["there is no CA yet: the first `cloudcore run` makes it"]
    rows = [("NAME", "UNTIL", "SIGNS", "NODES", "PIN")]
    for at, each in enumerate(found):
        # What was signed before that was written down was signed by the only one there was.
        nodes = sum(who is None and not at for who in identities.values())
        nodes += sum(
            now < who.expires and (who.ca or found[0].pin) == each.pin for who in identities.values() if who is not None
        )
        if now >= each.expires:
            signs = "expired"
        elif now < each.signs_from:
            signs = f"from {rfc3339(each.signs_from)}"
        else:
            is_last = not any(other.signs_from <= now < other.expires for other in found[at + 1 :])
            signs = "yes" if is_last else "no more"
        rows.append((each.name, rfc3339(each.expires), signs, str(nodes), each.pin[:16]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    told = ["   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if len(found) > 1:
        waiting = needing(found, identities, now, window)
        told.append(f"needing {found[0].name} still: {_named(waiting)}" if waiting else "nobody needs the first one")
    return told


def _plus(moment: datetime.datetime, window: datetime.timedelta) -> datetime.datetime:
    try:
        return moment + window
    except OverflowError:  # of what is damaged nobody knows when it ends
        return moment


def _named(nodes: list[Node]) -> str:
    more = f" and {len(nodes) - NAMED} more" if len(nodes) > NAMED else ""
    return ", ".join(nodes[:NAMED]) + more
