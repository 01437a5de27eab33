"""
A swarm of hollow nodes in its process, on the shipped link: `edgecore swarm` for a hub that has no apiserver.

    python -m benchmarks.swarmprocess PORT NODES [PKI]

Without a directory of certificates it speaks no TLS, which no edgecore does. Says on standard output, once a second,
how many are connected and in sync. Ends with its standard input.
"""

import asyncio
import json
import random
import sys
from pathlib import Path

import uvloop

from apimachinery.keys import Node
from edgehub.connector import hub_context
from edgehub.swarm import Swarm
from metamanager.intake import intake


async def _main(port: int, count: int, pki: Path | None) -> None:
    names = [f"hollow-{number}" for number in range(count)]
    nodes = [
        (Node(name), hub_context(pki / "ca.crt", pki / f"{name}.crt", pki / f"{name}.key") if pki else None)
        for name in names
    ]
    swarm = Swarm(nodes, "127.0.0.1", port, intake, agent="swarm", draw=random.random)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(swarm.run(), name="swarm")
        while not ended.done():
            facts = {"connected": swarm.connected, "synced": swarm.synced, "error": swarm.last_error}
            print(json.dumps(facts), flush=True)
            await asyncio.wait([ended], timeout=1.0)
        running.cancel()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None))
