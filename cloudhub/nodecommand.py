"""
`cloudcore node ban|unban|list`: who has which name, and who is to have none.

A ban is written to the apiserver, where every hub process watches it, so this command asks none of them and works while
none runs.
"""

import argparse
import datetime
from collections.abc import Sequence

from cloudhub import credentials
from cloudhub.roster import MAX_REASON, Listed, Roster
from cloudhub.tokencommand import table
from cloudhub.vault import Objects
from componentbase import cli
from componentbase.logs import one_line
from componentbase.words import rfc3339

_BAN = "cloudcore node ban rack7-3 --reason 'stolen from the depot'"
_COLUMNS = ("NODE", "CERTIFICATE UNTIL", "TOKEN", "BANNED")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    node = cli.add_command(commands, "node", "Ban and unban nodes, list their names.", f"{_BAN}\ncloudcore node list")
    actions = node.add_subparsers(dest="action", required=True, metavar="ACTION")
    ban = cli.add_command(actions, "ban", "End a node's connections and let it neither connect nor join.", _BAN)
    ban.add_argument("--reason", default="", metavar="TEXT", help="the node is told, and whoever looks")
    unban = cli.add_command(actions, "unban", "Let a node in again.", "cloudcore node unban rack7-3")
    for each in (ban, unban):
        each.add_argument("node", metavar="NODE", help="a name, whether somebody has it or not")
    listing = cli.add_command(
        actions, "list", "List the names that somebody has or that are banned.", "cloudcore node list"
    )
    for each in (ban, unban, listing):
        credentials.add_flag(each)
        cli.add_log_flags(each)


def run(args: argparse.Namespace) -> int:
    return credentials.run(args, act)


async def act(args: argparse.Namespace, objects: Objects) -> None:
    """Raises ApiError and CommandError."""
    from cloudhub.join import check_name

    roster, now = Roster(objects), datetime.datetime.now(datetime.UTC)
    match args.action:
        case "ban":
            reason = args.reason.strip()
            if len(reason) > MAX_REASON or not reason.isprintable():
                raise cli.CommandError(f"--reason must be one line of at most {MAX_REASON} characters")
            node = check_name(args.node)
            is_known = await roster.is_known(node)
            await roster.ban(node, reason, now)
            told = (
                "it is disconnected now, and can" if is_known else "nobody has this name yet, and whoever takes it can"
            )
            print(f"node {node} is banned: {told} neither connect nor join")
        case "unban":
            await roster.unban(check_name(args.node))
            print(f"node {args.node} may connect and join again; a running edgecore asks within eight minutes")
        case _:
            print("\n".join(lines(await roster.list(), now)))


def lines(names: Sequence[Listed], now: datetime.datetime) -> list[str]:
    """A table of who has which name."""
    return table(_COLUMNS, [_row(each, now) for each in names])


def _row(listed: Listed, now: datetime.datetime) -> tuple[str, ...]:
    node, identity, ban = listed
    until = token = ""
    if identity is not None:
        until = ("lapsed " if identity.expires <= now else "") + rfc3339(identity.expires)
        token = identity.token
    banned = "" if ban is None else one_line(f"{ban.since or 'yes'} {ban.reason}".strip())
    return node, until, token, banned
