"""
`cloudcore token create|list|delete`: join tokens for the person who hands them out.

The text of a token is printed once, by create, alone on stdout, so that it can be piped. A list shows everything else
there is to know of tokens: whom each lets in, how often it was used, and when and by whom last.
"""

import argparse
import datetime
from collections.abc import Collection, Sequence

from apimachinery.errors import NotFound
from cloudhub import cas, credentials
from cloudhub.authority import Authority
from cloudhub.tokens import DEFAULT_TTL, Grant, Token, Tokens, node_labels
from cloudhub.vault import Objects, Vault
from componentbase import cli
from componentbase.words import rfc3339

_CREATE = (
    "cloudcore token create --ttl 1h --nodes 'rack7-*' --labels site=berlin\ncloudcore token create --nodes edge-1"
)
_COLUMNS = ("ID", "UNTIL", "NODES", "USES", "LAST USE", "LABELS")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    token = cli.add_command(commands, "token", "Make, list and delete join tokens.", f"{_CREATE}\ncloudcore token list")
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = cli.add_command(actions, "create", "Print a new join token.", _CREATE)
    create.add_argument(
        "--ttl", type=cli.duration, default=DEFAULT_TTL, metavar="TIME", help="such as 30m, 12h, 7d; 24h by default"
    )
    create.add_argument(
        "--nodes", "--node", default="", metavar="PATTERN", help="names it is good for, with * and ?; any by default"
    )
    create.add_argument("--single-use", action="store_true", help="for one machine; any number by default")
    create.add_argument(
        "--replace", action="store_true", help="it may be used under a name that exists: the machine takes its place"
    )
    create.add_argument("--labels", default="", metavar="KEY=VALUE,...", help="of the Node, when it is made")
    listing = cli.add_command(actions, "list", "List join tokens and their uses.", "cloudcore token list")
    delete = cli.add_command(actions, "delete", "Make a join token useless.", "cloudcore token delete abcd2345")
    delete.add_argument("id", metavar="ID", help="as `cloudcore token list` shows it")
    for each in (create, listing, delete):
        credentials.add_flag(each)
        cli.add_log_flags(each)


def run(args: argparse.Namespace) -> int:
    return credentials.run(args, act)


async def act(args: argparse.Namespace, objects: Objects) -> None:
    """Raises ApiError and CommandError."""
    now = datetime.datetime.now(datetime.UTC)
    vault = Vault(objects)
    tokens = Tokens(vault)
    match args.action:
        case "create":
            if args.replace and not args.nodes:
                raise cli.CommandError("--replace needs --nodes: say whose place may be taken, or '*' for anybody's")
            try:
                grant = Grant(
                    args.nodes, args.single_use, args.replace, node_labels(args.labels) if args.labels else {}
                )
                authority = await Authority.load(vault)
                made = await tokens.create(pin=authority.pin, now=now, ttl=args.ttl, grant=grant)
            except ValueError as exc:
                raise cli.CommandError(str(exc)) from exc
            print(made.text)
        case "delete":
            try:
                await tokens.delete(args.id)
            except NotFound as exc:
                raise cli.CommandError(str(exc)) from exc
            print(f"token {args.id} is of no use any more")
        case _:
            pins = [each.pin for each in await cas.load(vault)]
            print("\n".join(lines(await tokens.list(), now, pins)))


def lines(tokens: Sequence[Token], now: datetime.datetime, pins: Collection[str]) -> list[str]:
    """A table of what is known of tokens. pins: of the CAs that there are; tokens of others let nobody in any more."""
    return table(_COLUMNS, [_row(token, now, pins) for token in tokens])


def table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """Lines whose columns are as wide as what is in them."""
    rows = [columns, *cells]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    return ["   ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(token: Token, now: datetime.datetime, pins: Collection[str]) -> tuple[str, ...]:
    grant, uses = token.grant, token.uses
    until = rfc3339(token.expires) if now < token.expires else "expired"
    if token.pin and token.pin not in pins and now < token.expires:
        until = "its CA was dropped"
    nodes = (grant.nodes or "any") + (", may replace" if grant.may_replace else "")
    count = 0 if uses is None else uses.times
    last = "" if uses is None else f"{rfc3339(uses.last)} by {uses.node}"
    labels = ",".join(f"{key}={value}" for key, value in grant.labels.items())
    return token.id, until, nodes, f"{count} of 1" if grant.is_single_use else str(count), last, labels
