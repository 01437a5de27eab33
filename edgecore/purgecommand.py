"""
`edgecore purge`: remove all that edgecore made on this machine, and say what is left to do in the cloud.

Which files those are is known here; how they are removed, and that nothing else is, componentbase/purging.py.
"""

import argparse
import glob
import logging
import sys
from pathlib import Path

from componentbase import cli
from edgecore.settings import CONFIG_NAME, PROG, QUIC_NAME, SOCKET_NAME, STORE_NAME, EdgeConfig, load

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """The command; its exit code."""
    from componentbase.purging import Purge, purge
    from edgehub.join import STAGED

    def command() -> None:
        data_dir = args.data_dir.absolute()
        traces = (CONFIG_NAME, STORE_NAME, STAGED)
        if not any((data_dir / name).exists() for name in traces):
            raise cli.CommandError(f"{data_dir} is not a node's directory: there is none of {', '.join(traces)} in it")
        node, key_file = _known_to(data_dir)
        plan = Purge(data_dir, _ours(data_dir, args.secrets_key or key_file))
        if not purge(plan, dry_run=args.dry_run, yes=args.yes, ask=input if sys.stdin.isatty() else None):
            return
        print(
            f"in the cloud, `kubectl delete node {node}` takes the node away, and `kubectl --namespace fairlead-system "
            f"delete secret node-{node}` gives its name free. Who has a copy of its key can use its "
            "certificate until that expires: where there may be one, ban the node there."
        )

    return cli.guard(PROG, command)


def _known_to(data_dir: Path) -> tuple[str, Path | None]:
    """The node's name and its configured key file; what a configuration that cannot be read says is not known."""
    try:
        settings = load(data_dir / CONFIG_NAME)
    except cli.CommandError as exc:
        logger.warning("the configuration cannot be read; what it names elsewhere stays", extra={"reason": str(exc)})
        return "NAME", None
    return settings.node, settings.secrets.key_file


def _ours(data_dir: Path, key_file: Path | None) -> list[tuple[Path, str]]:
    """Where edgecore's files are, as a directory and a pattern of names, in the order in which they should go."""
    from edgehub import join, renewal, renewing
    from metamanager.opening import FILES
    from metamanager.secretkeys import place_of

    place = place_of(data_dir, key_file)
    # The keys first: what is left of a purge that was interrupted is of no use to anybody.
    name = glob.escape(place.path.name)
    keys = [(place.path.parent, pattern) for pattern in (name, f".{name}.*.part")] if place.is_ours else []
    store = [STORE_NAME + pattern for pattern in FILES]
    folders = (join.PKI, *(f"{join.STAGED}/{each}" for each in (join.PKI, join.FORMER)), f"{renewal.STAGED}/{join.PKI}")
    identity = [
        f"{folder}/{pattern}"
        for name in join.IDENTITY_FILES  # the private keys are first among them
        for folder in folders
        for pattern in (name, f".{name}.*.part")
    ]
    under_way = [
        f"{folder}/{pattern}"
        for folder, names in (
            (join.STAGED, (join.ASKED_AS, CONFIG_NAME)),
            (renewal.STAGED, (renewing.ASKED_WITH, renewal.READY)),
        )
        for name in names
        for pattern in (name, f".{name}.*.part")
    ]
    emptied = (*folders, join.STAGED, renewal.STAGED)
    rest = (*identity, *under_way, *emptied, *store, EdgeConfig().mqtt.users.name, SOCKET_NAME, QUIC_NAME, CONFIG_NAME)
    return [*keys, *((data_dir, pattern) for pattern in rest)]
