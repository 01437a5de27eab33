"""
`edgecore rotate-secrets-key`: encrypt this node's Secrets with a new key, and forget the old one.

What is done to the store is metamanager/opening.py's; edgecore must be stopped, for it has the key in memory.
"""

import argparse

from componentbase import cli
from componentbase.files import lock_dir
from edgecore.settings import CONFIG_NAME, PROG, STORE_NAME, load


def run(args: argparse.Namespace) -> int:
    """The command; its exit code."""

    def command() -> None:
        from metamanager.errors import StoreError
        from metamanager.opening import rotate
        from metamanager.secretkeys import place_of

        settings = load(args.data_dir / CONFIG_NAME)
        place = place_of(args.data_dir, args.secrets_key or settings.secrets.key_file)
        with lock_dir(args.data_dir):
            try:
                rotate(args.data_dir / STORE_NAME, place)
            except StoreError as exc:
                raise cli.CommandError(str(exc)) from exc
        print(f"Secrets are encrypted with a new key, in {place.path}; the old one is forgotten")

    return cli.guard(PROG, command)
