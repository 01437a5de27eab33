"""
python -m benchmarks: measure, print a table, leave a JSON file.

    python -m benchmarks                             everything, about eleven minutes
    python -m benchmarks --only latency --runs 5     one family
    python -m benchmarks --quick                     a tenth of the samples: does it work at all?

Families: latency, recovery, devices, twins, footprint, start, localapi, install, imports.
What each figure is: docs/performance.md.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import devices, footprint, imports, install, latency, localapi, procfs, recovery, start, twins
from benchmarks.figures import Figure, as_json, table

RESULTS = Path(__file__).resolve().parent / "results"
FAMILIES = ("install", "imports", "footprint", "start", "localapi", "latency", "recovery", "devices", "twins")

QUIET_LOAD = 1.2  # per core, with the measured processes in it

Measuring = Callable[[], Iterator[list[Figure]]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure the line on real processes.")
    parser.add_argument(
        "--only", action="append", choices=FAMILIES, help="a family; may be given again; all by default"
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each is repeated; 3 by default")
    parser.add_argument("--quick", action="store_true", help="few samples: to see whether it works")
    parser.add_argument(
        "--here", action="store_true", help="start edgecore from this environment, not from a fresh one"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "latest.json", help="the JSON file")
    args = parser.parse_args()
    wanted = args.only or list(FAMILIES)
    # Without bytecode files every start would compile everything again, and be measured doing so.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    machine = procfs.machine()
    began = time.monotonic()
    found: dict[str, list[Figure]] = {}
    loads: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="bench-install-") as directory:
        for family, measuring in _plan(wanted, args, Path(directory)):
            _say(f"{family} ...", began)
            for figures in measuring():
                found.setdefault(family, []).extend(figures)
                loads[family] = max(loads.get(family, 0.0), os.getloadavg()[0])
                _say(f"{family}: {len(found[family])} figures", began)
    machine["highest_load"] = {family: round(load, 2) for family, load in loads.items()}
    for family, figures in found.items():
        print(f"\n{family} (load up to {loads[family]:.1f})\n\n{table(figures)}")
    if max(loads.values()) > QUIET_LOAD * (os.cpu_count() or 1):
        print("\nThis machine was busy with more than these measurements: times and processor shares say little.")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(as_json(found, machine), indent=1) + "\n")
    print(f"\n{machine}\nwritten to {args.output}")
    return 0


def _plan(wanted: list[str], args: argparse.Namespace, directory: Path) -> Iterator[tuple[str, Measuring]]:
    """What to measure, in order. Fresh environments are made when the first that needs one comes."""
    programs: dict[str, Path] = {}
    edgecore: Path | None = None
    if not args.here and set(wanted) - {"latency", "recovery", "devices"}:
        # Of the cloud's libraries only the install and the imports know anything new.
        for extra in ("edge", "cloud") if {"install", "imports"} & set(wanted) else ("edge",):
            programs[extra] = install.environment(directory, extra)
        edgecore = programs["edge"] / "edgecore"
    for extra, place in programs.items():
        if "install" in wanted:
            yield "install", partial(install.measure, place, extra)
        if "imports" in wanted:
            yield "imports", partial(imports.measure, args.runs, place / "python", f"{extra}core")
    if "footprint" in wanted:
        yield "footprint", partial(footprint.measure, args.runs, args.quick, edgecore)
    if "start" in wanted:
        yield "start", partial(start.measure, args.runs, args.quick, edgecore)
    if "localapi" in wanted:
        yield "localapi", partial(localapi.measure, args.runs, args.quick, edgecore)
    if "latency" in wanted:
        yield "latency", partial(latency.measure, args.runs, args.quick)
    if "recovery" in wanted:
        yield "recovery", partial(recovery.measure, args.runs, args.quick)
    if "devices" in wanted:
        yield "devices", partial(devices.measure, args.runs, args.quick)
    if "twins" in wanted:
        yield "twins", partial(twins.measure, args.runs, args.quick, edgecore)


def _say(text: str, began: float) -> None:
    print(f"[{time.monotonic() - began:4.0f} s, load {os.getloadavg()[0]:.1f}] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
