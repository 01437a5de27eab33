"""
`cloudcore token`: make, list and delete the tokens that machines join with. It speaks to the apiserver, not to a hub.
"""

import argparse
import datetime

from apimachinery.errors import ApiError, Unauthorized
from cloudhub import credentials
from cloudhub.tokens import DEFAULT_TTL, Tokens
from componentbase import cli


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    token = cli.add_command(
        commands,
        "token",
        "Make, list and delete join tokens.",
        "cloudcore token create --kubeconfig kubeconfig --ttl 1h --node edge-1\ncloudcore token list",
    )
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = cli.add_command(
        actions,
        "create",
        "Print a new join token.",
        "cloudcore token create --kubeconfig kubeconfig --ttl 1h --node edge-1",
    )
    create.add_argument(
        "--ttl", type=cli.duration, default=DEFAULT_TTL, metavar="TIME", help="such as 30m, 12h, 7d; 24h by default"
    )
    create.add_argument("--node", metavar="NAME", help="the only node that may use it")
    listing = cli.add_command(actions, "list", "List join tokens.", "cloudcore token list --kubeconfig kubeconfig")
    delete = cli.add_command(
        actions, "delete", "Make a join token useless.", "cloudcore token delete abcd2345 --kubeconfig kubeconfig"
    )
    delete.add_argument("id", metavar="ID", help="as `cloudcore token list` shows it")
    for each in (create, listing, delete):
        credentials.add_flag(each)
        cli.add_log_flags(each)


def run(args: argparse.Namespace) -> int:
    # Here and not at the top: a running cloudcore has this module for its flags only.
    from cloudhub.apiclient import ObjectsByName
    from cloudhub.authority import Authority
    from cloudhub.join import check_name
    from cloudhub.vault import Vault

    async def command() -> None:
        now = datetime.datetime.now(datetime.UTC)
        async with credentials.client(args.kubeconfig) as client:
            vault = Vault(ObjectsByName(client))
            tokens = Tokens(vault)
            try:
                if args.action == "create":
                    node = None if args.node is None else check_name(args.node)
                    authority = await Authority.load(vault)
                    print((await tokens.create(pin=authority.pin, now=now, ttl=args.ttl, node=node)).text)
                elif args.action == "delete":
                    await tokens.delete(args.id)
                    print(f"token {args.id} is of no use any more")
                else:
                    for token in await tokens.list():
                        state = "expired" if now >= token.expires else f"until {token.expires.isoformat()}"
                        print(f"{token.id}  {state}  {token.node or 'any node'}")
            except Unauthorized as exc:
                raise cli.CommandError(credentials.refusal(exc)) from exc
            except (ApiError, ValueError) as exc:
                raise cli.CommandError(str(exc)) from exc

    return cli.run(command(), prog="cloudcore")
