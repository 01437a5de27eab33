"""
`edgecore join`: make this machine a node, or say with --check what would keep it from becoming one.

A token is a secret: it comes from a file or standard input where others can read the command line, and its file goes
once it has done its work.
"""

import argparse
import logging
import sys
from pathlib import Path

from apimachinery.keys import Node
from componentbase import cli, config
from edgecore.settings import PROG, CloudConfig, EdgeConfig

logger = logging.getLogger(__name__)

TOKEN_LINE = 1000  # characters of a token's file that are looked at; a token has 121


def run(args: argparse.Namespace) -> int:
    """The command; its exit code."""
    from edgehub.join import Joined, join

    def command() -> None:
        def configuration(joined: Joined) -> str:
            return config.dump(EdgeConfig(node=joined.node, cloud=CloudConfig(link=joined.link, join=args.cloud)))

        token = _token(args)
        if args.check:
            _check_join(args, token)
            return
        joined = join(args.cloud, token, Node(args.node), args.data_dir, configuration, replace=args.force)
        if args.token_file is not None:
            _wipe(args.token_file)
        print(f"{joined.node} has joined; start it with: {PROG} run --data-dir {args.data_dir}")

    return cli.guard(PROG, command)


def _token(args: argparse.Namespace) -> str:
    if args.token_file is None:
        return str(sys.stdin.readline().strip() if args.token == "-" else args.token)  # noqa: S105 - the flag, no secret
    try:
        with args.token_file.open() as file:
            return str(file.readline(TOKEN_LINE).strip())
    except (OSError, UnicodeDecodeError) as exc:
        raise cli.CommandError(f"cannot read {args.token_file}: {getattr(exc, 'strerror', None) or 'no text'}") from exc


def _wipe(token_file: Path) -> None:
    """The token has done its work; nobody is to find it here. The node is one by now, so this is not to fail."""
    try:
        token_file.unlink()
    except OSError as exc:
        logger.warning(
            "the token's file is still there, remove it", extra={"file": token_file, "problem": exc.strerror}
        )


def _check_join(args: argparse.Namespace, token: str) -> None:
    from edgehub.joincheck import Verdict, check

    failed = 0
    for finding in check(args.cloud, token, Node(args.node), args.data_dir, replace=args.force):
        print(finding, flush=True)
        failed += finding.verdict is Verdict.FAIL
    if failed:
        raise cli.CommandError(f"{args.node} cannot join yet: {failed} of these failed, see what they say")
    print(f"{args.node} can join")
