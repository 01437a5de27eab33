"""
python -m benchmarks: measure, print the table against targets, leave a JSON file and plots.

    python -m benchmarks                             all that is promised, about ten minutes
    python -m benchmarks --list                      families, and how long they take
    python -m benchmarks --only latency --runs 5     one family
    python -m benchmarks --all                       the families of other pages, too
    python -m benchmarks --quick                     few samples: does it work at all?
    python -m benchmarks --write-docs                what was measured last, into docs/performance.md; measures nothing

Each family is measured as often as --list says; --runs says otherwise. Ctrl-c and SIGTERM stop all processes.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import (
    badnetworks,
    devapi,
    devices,
    edgeapply,
    fanout,
    flood,
    footprint,
    growth,
    hubmemory,
    imports,
    install,
    latency,
    localapi,
    mappers,
    onenode,
    recovery,
    requests,
    results,
    start,
    tenthousand,
    twins,
    workers,
)
from benchmarks.figures import Measured, table
from benchmarks.pair import ROOT, end_on_sigterm

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = ROOT / "docs" / "performance.md"


class Ground:
    """What families share: a directory, certificates, fresh environments made when the first that needs one comes."""

    def __init__(self, directory: Path, *, quick: bool, here: bool) -> None:
        self.directory = directory
        self.pki = directory / "pki"
        self.quick = quick
        self._here = here
        self._programs: dict[str, Path] = {}

    @property
    def edgecore(self) -> Path | None:
        """The edge's program in an environment of its own; None for this tree's."""
        return None if self._here else self.programs("edge") / "edgecore"

    def programs(self, extra: str) -> Path:
        if extra not in self._programs:
            self._programs[extra] = install.environment(self.directory, extra)
        return self._programs[extra]


class Plan(NamedTuple):
    """One family."""

    about: str
    runs: int
    """How often by default."""
    seconds: int
    """What that takes, roughly, on two quiet cores."""
    measure: Callable[[Ground, int], Iterator[Sequence[Measured]]]


def _installed(ground: Ground, runs: int) -> Iterator[Sequence[Measured]]:
    for extra in ("edge", "cloud"):
        yield from install.measure(ground.programs(extra), extra)


def _imported(ground: Ground, runs: int) -> Iterator[Sequence[Measured]]:
    for extra in ("edge", "cloud"):
        yield from imports.measure(runs, ground.programs(extra) / "python", f"{extra}core")


PROMISED = {
    "fanout": Plan(
        "one change to 10 .. 1,000 nodes, beside the loop in C", 3, 70, lambda g, n: fanout.measure(n, g.quick, g.pki)
    ),
    "distinct": Plan(
        "watch events of pods, each to its own node", 3, 20, lambda g, n: fanout.distinct(n, g.quick, g.pki)
    ),
    "addedlatency": Plan(
        "watch event -> committed in a real edgecore",
        3,
        50,
        lambda g, n: onenode.added_latency(n, g.quick, g.edgecore, g.pki),
    ),
    "requests": Plan("what syncing asks of the apiserver", 1, 25, lambda g, n: requests.measure(n, g.quick)),
    "hubmemory": Plan("memory per idle node", 1, 25, lambda g, n: hubmemory.measure(n, g.quick, g.pki)),
    "tenthousand": Plan(
        "10,000 nodes, and the hub killed", 1, 170, lambda g, n: tenthousand.measure(n, g.quick, g.pki)
    ),
    "storm": Plan("1,000 nodes cut off at once", 3, 30, lambda g, n: tenthousand.storm(n, g.quick, g.pki)),
    "footprint": Plan(
        "memory of the processes, and what idling costs", 1, 75, lambda g, n: footprint.measure(n, g.quick, g.edgecore)
    ),
    "start": Plan("edgecore started -> its API answers", 1, 15, lambda g, n: start.measure(n, g.quick, g.edgecore)),
    "edgeapply": Plan(
        "objects committed per second at the edge", 3, 25, lambda g, n: edgeapply.measure(n, g.quick, g.edgecore, g.pki)
    ),
    "flood": Plan("what pods feel of a flood of their node's devices", 1, 70, lambda g, n: flood.measure(n, g.quick)),
    "growth": Plan(
        "cost of a change over objects, nodes and rate", 1, 40, lambda g, n: growth.measure(n, g.quick, g.pki)
    ),
}
OTHERS = {
    "install": Plan("what has to be installed", 1, 40, _installed),
    "imports": Plan("what each import costs in memory", 3, 15, _imported),
    "localapi": Plan("the node's API", 3, 60, lambda g, n: localapi.measure(n, g.quick, g.edgecore)),
    "latency": Plan("from an edit to the device and back", 3, 180, lambda g, n: latency.measure(n, g.quick)),
    "recovery": Plan("bytes, requests and seconds of a sync", 3, 200, lambda g, n: recovery.measure(n, g.quick)),
    "devices": Plan("1,000 devices of one node edited", 3, 200, lambda g, n: devices.measure(n, g.quick)),
    "workers": Plan("one hub process, and two that share a port", 1, 120, lambda g, n: workers.measure(n, g.quick)),
    "mappers": Plan("memory and processor of mappers", 1, 180, lambda g, n: mappers.measure(n, g.quick)),
    "apiserver": Plan("the embedded apiserver by itself", 1, 60, lambda g, n: devapi.measure(n, g.quick)),
    "floodsteps": Plan("the flood, a part of it at a time", 1, 70, lambda g, n: flood.steps(n, g.quick)),
    "narrowflood": Plan("the same flood over 1 Mbit/s", 1, 120, lambda g, n: flood.narrow(n, g.quick)),
    "badnetworks": Plan("websocket and QUIC over bad lines", 1, 700, lambda g, n: badnetworks.measure(n, g.quick)),
    "twins": Plan("reports from MQTT to the commit", 3, 150, lambda g, n: twins.measure(n, g.quick, g.edgecore)),
}
FAMILIES = PROMISED | OTHERS


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure the line on real processes.")
    parser.add_argument("--only", action="append", choices=FAMILIES, metavar="FAMILY", help="may be given again")
    parser.add_argument("--all", action="store_true", help="families without a row in the first table, too")
    parser.add_argument("--list", action="store_true", help="name the families and end")
    parser.add_argument("--runs", type=int, help="how often each is repeated; by default as --list says")
    parser.add_argument("--quick", action="store_true", help="few samples: to see whether it works")
    parser.add_argument(
        "--here", action="store_true", help="start edgecore from this environment, not from a fresh one"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "latest.json", help="the JSON file; plots go beside it"
    )
    parser.add_argument("--write-docs", action="store_true", help=f"put the file's figures into {PAGE.name} and end")
    args = parser.parse_args()
    if args.list:
        for name, plan in FAMILIES.items():
            print(f"{name:13} {plan.seconds:4} s {plan.runs:2} x  {plan.about}{'' if name in PROMISED else ' (--all)'}")
        return 0
    if args.write_docs:
        families = results.read(args.output)
        written = results.write_plots(PAGE.with_suffix(""), families)
        PAGE.write_text(results.fill(PAGE.read_text(), families))
        print(f"{len(families)} families are in {PAGE}, {len(written)} plots beside it")
        return 0
    end_on_sigterm()
    # Without bytecode files every start would compile everything again, and be measured doing so.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    measured = _measure(args.only or list(FAMILIES if args.all else PROMISED), args)
    plots = results.write_plots(args.output.parent, results.read(args.output))
    _tell(measured)
    print(f"\nwritten to {args.output}, and {len(plots)} plots beside it")
    return 1 if any(family.error for family in measured.values()) else 0


def _measure(wanted: Sequence[str], args: argparse.Namespace) -> dict[str, results.Family]:
    """
    One after another, each written when it is there.

    What fails is told, and does not keep the others from being measured.
    """
    began = time.monotonic()
    measured: dict[str, results.Family] = {}
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as directory:
        ground = Ground(Path(directory), quick=args.quick, here=args.here)
        for name in wanted:
            plan = FAMILIES[name]
            family = measured[name] = results.Family(args.runs or plan.runs)
            _say(f"{name}: {plan.about}; about {plan.seconds} s", began)
            family_began = time.monotonic()
            try:
                for found in plan.measure(ground, family.runs):
                    family.add(found)
                    _say(f"{name}: {len(family.figures)} figures", began)
            except (AssertionError, OSError) as exc:
                family.error = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
                _say(f"{name} FAILED: {exc}", began)
            family.seconds = time.monotonic() - family_began
            known = results.read(args.output) | measured
            results.write(args.output, {each: known[each] for each in FAMILIES if each in known})
    return measured


def _tell(families: dict[str, results.Family]) -> None:
    for name, family in families.items():
        print(f"\n{name} ({family.seconds:.0f} s, {family.load})\n\n{table(family.figures)}")
        if family.error:
            print(f"\nit failed: {family.error}")
    promised = results.promises(families)
    if promised:
        print(f"\nWhat is promised: {sum(bool(each.is_met) for each in promised)} met\n\n{table(promised)}")
    if any(family.was_disturbed for family in families.values()):
        print("\nThis machine was busy with more than these measurements: times and processor shares say little.")
    print(f"\n{results.machine()}")


def _say(text: str, began: float) -> None:
    print(f"[{time.monotonic() - began:4.0f} s, load {os.getloadavg()[0]:.1f}] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
