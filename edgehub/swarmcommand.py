"""
`edgecore swarm`: load a hub with hollow nodes, and say how it carries them.

Each node joins with the token, so that the hub sees nodes like any other, each with a certificate of its own. They are
kept in a directory and need not join again. While it runs it prints how many are connected and in sync and how fast
changes come in; at the end it prints what it took.
"""

import argparse
import asyncio
import gc
import random
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from apimachinery.keys import Node
from componentbase import cli
from componentbase.descriptors import allow_many_files
from componentbase.endpoints import Endpoint
from componentbase.tls import read_little_at_a_time
from componentbase.words import counted

if TYPE_CHECKING:  # a running edgecore has this module for its flags only, and needs none of these for them
    from edgehub.swarm import Intake, Swarm
SAY_S = 1.0
LINK_FILE = "link"
"""Where a hollow node has noted the hub that it joined, instead of a configuration."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    parser = cli.add_command(
        commands,
        "swarm",
        "Connect many hollow nodes to a hub, to see what it will carry. They hold what they are sent, in memory.",
        "edgecore swarm --nodes 1000 --cloud hub.example:10002 --token TOKEN --data-dir /tmp/swarm",
    )
    parser.add_argument("--nodes", type=int, required=True, metavar="N", help="how many")
    parser.add_argument(
        "--prefix", default="hollow", metavar="NAME", help="their names are NAME-0, NAME-1, ...; hollow"
    )
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="where their certificates are kept")
    parser.add_argument("--cloud", type=cli.endpoint_with(10002), metavar="HOST:PORT", help="cloudcore's join endpoint")
    parser.add_argument("--token", help="from `cloudcore token create`; needed for nodes that have not joined yet")
    parser.add_argument("--seconds", type=float, metavar="S", help="end after so long; until interrupted by default")
    return parser


def run(args: argparse.Namespace, intake: "Intake", agent: str) -> int:
    if args.nodes < 1:
        raise cli.CommandError("--nodes must be at least 1")
    names = [Node(f"{args.prefix}-{number}") for number in range(args.nodes)]
    link = _enrol(names, args)
    allow_many_files()
    read_little_at_a_time()
    nodes = [(name, _context(args.data_dir / name)) for name in names]
    return cli.run(_serve(nodes, link, intake, agent, args.seconds), prog="edgecore swarm")


def _enrol(names: Sequence[Node], args: argparse.Namespace) -> Endpoint:
    """Have every node join that has not; returns where the hub's link is."""
    from edgehub.join import join

    missing = [name for name in names if not (args.data_dir / name / LINK_FILE).exists()]
    if missing and (args.cloud is None or args.token is None):
        raise cli.CommandError(f"{len(missing)} of the nodes have not joined yet: give --cloud and --token")
    for number, name in enumerate(missing, 1):
        joined = join(args.cloud, args.token, name, args.data_dir / name, lambda joined: f"{joined.link}\n")
        (args.data_dir / name / LINK_FILE).write_text(f"{joined.link}\n")
        if number % 100 == 0 or number == len(missing):
            print(f"{number} of {len(missing)} have joined", flush=True)
    return Endpoint.parse((args.data_dir / names[0] / LINK_FILE).read_text().strip(), 0)


def _context(home: Path) -> ssl.SSLContext:
    from edgehub.connector import hub_context
    from edgehub.join import CA_FILE, CERTIFICATE_FILE, KEY_FILE, PKI

    pki = home / PKI
    return hub_context(pki / CA_FILE, pki / CERTIFICATE_FILE, pki / KEY_FILE)


async def _serve(
    nodes: Sequence[tuple[Node, ssl.SSLContext]], link: Endpoint, intake: "Intake", agent: str, seconds: float | None
) -> None:
    from edgehub.swarm import Swarm

    # What was imported stays; left in, it puts off the full collection that finds what is left of asyncio's transports,
    # which hold themselves, until those of a dozen cuts have come together.
    gc.freeze()
    swarm = Swarm(nodes, link.host, link.port, intake, agent=agent, draw=random.random)
    began = time.monotonic()
    in_sync_after: float | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(swarm.run(), name="swarm")
            while seconds is None or time.monotonic() - began < seconds:
                before = swarm.counters.deltas
                await asyncio.sleep(SAY_S)
                if in_sync_after is None and swarm.synced == len(nodes):
                    in_sync_after = time.monotonic() - began
                print(_line(swarm, time.monotonic() - began, swarm.counters.deltas - before), flush=True)
            running.cancel()
    finally:
        counters = swarm.counters
        when = "never all" if in_sync_after is None else f"all after {in_sync_after:.1f} s"
        print(
            f"{counted(len(nodes), 'node')}, in sync: {when}; {counters.deltas} changes in {counters.pushes} pushes, "
            f"{counters.refused} refused; {counters.dials} dials, {counters.lost} connections lost"
        )


def _line(swarm: "Swarm", elapsed_s: float, deltas: int) -> str:
    line = f"{elapsed_s:5.0f} s  {swarm.connected} connected, {swarm.synced} in sync, {deltas / SAY_S:.0f} changes/s"
    is_worth_telling = swarm.last_error and swarm.connected < len(swarm.nodes)
    return f"{line}; last problem: {swarm.last_error}" if is_worth_telling else line
