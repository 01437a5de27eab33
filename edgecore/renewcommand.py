"""
`edgecore renew`: this node's next certificate now, by the running edgecore where there is one, else here.
"""

import argparse
from pathlib import Path

from apimachinery.keys import Node
from componentbase import cli, statusz
from componentbase.files import Locked, lock_dir
from componentbase.words import rfc3339
from edgecore.settings import CONFIG_NAME, PROG, SOCKET_NAME, EdgeConfig, are_joined, join_endpoint, load


def run(args: argparse.Namespace) -> int:
    """The command; its exit code."""

    def command() -> None:
        settings = load(args.data_dir / CONFIG_NAME)
        if not are_joined(settings.cloud, args.data_dir):
            raise cli.CommandError(f"{settings.cloud.certificate} is not what `{PROG} join` made: renew it yourself")
        try:
            with lock_dir(args.data_dir):
                _renew_here(settings, args.data_dir)
        except Locked:
            statusz.ask(args.data_dir / SOCKET_NAME, PROG, "POST /renew")
            print(f"the running {PROG} gets another certificate now; `{PROG} status` and its log say how it went")

    return cli.guard(PROG, command)


def _renew_here(settings: EdgeConfig, data_dir: Path) -> None:
    from componentbase.certificates import validity
    from edgehub.renewal import settle
    from edgehub.renewing import prepare

    cloud = settings.cloud
    try:
        settle(data_dir)
        prepare(data_dir, Node(settings.node), join_endpoint(cloud), at_once=True, tls_min=cloud.tls_min)
        settle(data_dir)
        until = validity(cloud.certificate.read_bytes()).lapses
    except (OSError, ValueError) as exc:
        raise cli.CommandError(f"the certificates in {data_dir / 'pki'} cannot be used: {exc}") from exc
    print(f"{settings.node} has a certificate until {rfc3339(until)}")
