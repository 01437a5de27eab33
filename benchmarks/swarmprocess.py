"""
A swarm of hollow nodes in its process, on the shipped link: `edgecore swarm` for a hub that has no apiserver.

    python -m benchmarks.swarmprocess PORT NODES [--pki DIR]

Without a directory of certificates it speaks no TLS, which no edgecore does. Each line on its standard input is
answered with how the swarm is, as JSON. Ends with its standard input.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path

import uvloop

from benchmarks.certificates import name_of
from componentbase.descriptors import allow_many_files
from edgehub.connector import hub_context
from edgehub.swarm import Swarm
from metamanager.intake import intake


async def _main(port: int, count: int, pki: Path | None) -> None:
    nodes = [
        (name, hub_context(pki / "ca.crt", pki / f"{name}.crt", pki / f"{name}.key") if pki else None)
        for name in map(name_of, range(count))
    ]
    swarm = Swarm(nodes, "127.0.0.1", port, intake, agent="swarm", draw=random.random)
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(swarm.run(), name="swarm")
        while await loop.run_in_executor(None, sys.stdin.readline):
            facts = {
                "connected": swarm.connected,
                "synced": swarm.synced,
                "refused": swarm.counters.refused,
                "error": swarm.last_error,
                "processor_s": time.process_time(),
            }
            print(json.dumps(facts), flush=True)
        running.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="swarmprocess", description="Hollow nodes; a line on stdin asks how they are."
    )
    parser.add_argument("port", type=int)
    parser.add_argument("nodes", type=int)
    parser.add_argument("--pki", type=Path, help="a directory of certificates, see benchmarks/certificates.py")
    args = parser.parse_args()
    allow_many_files()
    uvloop.run(_main(args.port, args.nodes, args.pki))
