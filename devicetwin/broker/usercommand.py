"""
`edgecore mqtt user`: who may come to the embedded broker, from the command line.

A running edgecore notices the changed file within a second or two; nothing is to be restarted. A password is read from
standard input or made here and shown once: on a command line it could be read by everybody on the machine.

The rest of the broker is imported by the commands and not by their parser, which every edgecore builds.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from componentbase import cli

_EXAMPLE = """\
edgecore mqtt user add modbus --mapper --data-dir /var/lib/edgecore
edgecore mqtt user add display --device default/thermo-1 --password-stdin --data-dir /var/lib/edgecore < secret
edgecore mqtt user list --data-dir /var/lib/edgecore
edgecore mqtt user delete display --data-dir /var/lib/edgecore"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> list[argparse.ArgumentParser]:
    """Add `mqtt user ...`; the parsers of its commands, for the flags that all commands have."""
    mqtt = cli.add_command(commands, "mqtt", "Say who may come to the embedded MQTT broker.", _EXAMPLE)
    user = cli.add_command(
        mqtt.add_subparsers(dest="mqtt_command", required=True, metavar="COMMAND"), "user", "Its users.", _EXAMPLE
    )
    verbs = user.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    add = cli.add_command(verbs, "add", "Add a user, or set one anew: its password and its rights.", _EXAMPLE)
    add.add_argument("name", metavar="NAME")
    add.add_argument(
        "--mapper",
        action="store_true",
        help="may publish for its devices, and for the mapper that is called NAME; else it only listens",
    )
    add.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="NAMESPACE/NAME",
        help="these devices only, NAMESPACE/* for a namespace; repeatable; all of the node by default",
    )
    add.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="FILTER",
        help="further topics, outside of $hw/, to publish and subscribe; repeatable",
    )
    add.add_argument("--password-stdin", action="store_true", help="read the password rather than make one")
    delete = cli.add_command(verbs, "delete", "Delete a user; it is disconnected.", _EXAMPLE)
    delete.add_argument("name", metavar="NAME")
    return [add, delete, cli.add_command(verbs, "list", "List the users and what they may do.", _EXAMPLE)]


def run(args: argparse.Namespace, path: Path) -> None:
    """Do what the command line asks with the file of users. Raises CommandError."""
    verbs: dict[str, Callable[[argparse.Namespace, Path], None]] = {"add": _add, "delete": _delete, "list": _list}
    verbs[args.verb](args, path)


def _add(args: argparse.Namespace, path: Path) -> None:
    import secrets

    from devicetwin.broker.users import changing, hashed, read_account

    rights = {"mapper": args.mapper, "devices": args.device, "topics": args.topic}
    read_account(args.name, {"password": "", **rights})  # refused before a password is asked for
    password = sys.stdin.readline().rstrip("\r\n") if args.password_stdin else secrets.token_urlsafe(18)
    account = read_account(args.name, {"password": hashed(password), **rights})
    with changing(path) as users:
        users[args.name] = account
    if not args.password_stdin:
        print(password)


def _delete(args: argparse.Namespace, path: Path) -> None:
    from devicetwin.broker.users import UsersError, changing

    with changing(path) as users:
        if users.pop(args.name, None) is None:
            raise UsersError(f"there is no user {args.name}; there are: {', '.join(sorted(users)) or 'none'}")


def _list(args: argparse.Namespace, path: Path) -> None:
    from devicetwin.broker.users import load

    users = load(path)
    for name in sorted(users):
        account = users[name]
        role = "mapper" if account.mapper else "observer"
        print(f"{name:<20} {role:<9} {' '.join((*account.devices, *account.topics)) or 'all devices'}")
