"""
What each part of edgecore and cloudcore costs in memory just by being imported.

Imported one after another in one fresh interpreter, in the order in which the program needs them, so that a module
that two parts share counts for the first. Memory for as long as the process lives: nothing unloads a module.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure

EDGECORE = (
    ("the interpreter", ()),
    ("asyncio, ssl, argparse, json", ("argparse", "json", "logging", "ssl", "asyncio")),
    ("edgecore's own root, configuration (yaml)", ("edgecore.__main__", "edgecore.compose")),
    ("orjson", ("orjson",)),
    ("msgpack, websockets", ("msgpack", "websockets.client", "websockets.server")),
    ("h11", ("h11",)),
    ("sqlite3", ("sqlite3",)),
    ("link, store, twin, local API", ("edgehub.connector", "metamanager.api", "devicetwin.service")),
    ("the embedded broker", ("devicetwin.broker.server",)),
)
CLOUDCORE = (
    ("the interpreter", ()),
    ("asyncio, ssl, argparse, json", ("argparse", "json", "logging", "ssl", "asyncio", "uvloop")),
    ("httpx2", ("httpx2",)),
    ("lightkube", ("lightkube", "cloudhub.apiclient")),
    ("msgpack, websockets, h11", ("msgpack", "websockets.client", "websockets.server", "h11")),
    ("cryptography", ("cloudhub.authority",)),
    ("everything else", ("cloudcore",)),
)
_MEASURE = """
import importlib, json, sys
def memory():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")]
taken = []
for names in json.loads(sys.argv[1]):
    for name in names:
        importlib.import_module(name)
    taken.append([*memory(), len(sys.modules)])
print(json.dumps(taken))
"""


def measure(runs: int, python: Path, program: str) -> Iterator[list[Figure]]:
    """Resident memory by part, then the sums."""
    steps = EDGECORE if program == "edgecore" else CLOUDCORE
    taken = [_imported(python, [names for _, names in steps]) for _ in range(max(3, runs))]
    figures = []
    for place, (name, _) in enumerate(steps):
        grown = [run[place][0] - (run[place - 1][0] if place else 0.0) for run in taken]
        anonymous = [run[place][1] - (run[place - 1][1] if place else 0.0) for run in taken]
        modules = taken[0][place][2] - (taken[0][place - 1][2] if place else 0)
        note = f"{sorted(anonymous)[len(anonymous) // 2]:.1f} MB anonymous, {modules:.0f} modules"
        figures.append(Figure(f"{program} imports: {name}", "MB", grown, note=note))
    figures.append(Figure(f"{program} imports, all: resident", "MB", [run[-1][0] for run in taken]))
    figures.append(Figure(f"{program} imports, all: anonymous", "MB", [run[-1][1] for run in taken]))
    yield figures


def _imported(python: Path, steps: list[tuple[str, ...]]) -> list[list[float]]:
    answer = subprocess.run(
        [str(python), "-c", _MEASURE, json.dumps(steps)], check=True, capture_output=True, text=True, cwd="/"
    )
    taken: list[list[float]] = json.loads(answer.stdout)
    return taken
