"""
Runs the simulation from the command line; the tests run less of it.

    python -m tests.sim soak --seconds 3600     as many schedules as time allows, on all processors
    python -m tests.sim mutations               the table of docs/simulation.md
    python -m tests.sim run SEED                one schedule, and what is wrong with it
"""

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count, islice
from typing import NamedTuple

from tests.sim.checks import problems, run
from tests.sim.mutations import MUTATIONS, Row, table, tried

BATCH = 50  # schedules per errand of a process: about a second


class Batch(NamedTuple):
    """What some schedules came to."""

    schedules: int
    happened: Counter[str]
    wrong: dict[int, list[str]]


def batch(first: int, schedules: int = BATCH) -> Batch:
    logging.disable()
    happened: Counter[str] = Counter()
    wrong: dict[int, list[str]] = {}
    for seed in range(first, first + schedules):
        try:
            world = run(seed)
            found = problems(world)
            happened.update(world.happened)
        except Exception as error:  # an assertion of a core is a finding like any other
            found = [repr(error)]
        if found:
            wrong[seed] = found
    return Batch(schedules, happened, wrong)


def batches(seconds: float, first: int) -> Iterator[Batch]:
    """Batches for as long as there is time."""
    until = time.monotonic() + seconds
    starts = count(first, BATCH)
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers) as pool:
        while time.monotonic() < until:
            yield from pool.map(batch, islice(starts, workers))


def soak(seconds: float, first: int) -> int:
    began = time.monotonic()
    schedules = 0
    happened: Counter[str] = Counter()
    wrong: dict[int, list[str]] = {}
    for each in batches(seconds, first):
        schedules += each.schedules
        happened += each.happened
        wrong |= each.wrong
        for seed, found in each.wrong.items():
            print(f"seed {seed}: {'; '.join(found)}", flush=True)
    took = time.monotonic() - began
    print(f"{schedules} schedules from seed {first} in {took:.0f} s, {schedules / took:.0f} per second")
    print("what happened in them: " + ", ".join(f"{name} {times}" for name, times in sorted(happened.items())))
    print(f"wrong: {len(wrong)}")
    return 1 if wrong else 0


def mutations(schedules: int) -> int:
    logging.disable()
    seeds = range(schedules)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows: list[Row] = list(pool.map(partial(_tried, seeds=seeds), range(len(MUTATIONS))))
    print("\n".join(table(rows)))
    return 0 if all(row.wrong for row in rows) else 1


def _tried(place: int, seeds: Iterable[int]) -> Row:
    logging.disable()
    return tried(MUTATIONS[place], seeds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="The deterministic simulation.")
    commands = parser.add_subparsers(dest="command", required=True)
    asked = commands.add_parser("soak", help="as many schedules as time allows")
    asked.add_argument("--seconds", type=float, default=600.0)
    asked.add_argument("--first", type=int, default=0, help="the first seed")
    asked = commands.add_parser("mutations", help="each rule switched off in turn: how many schedules notice")
    asked.add_argument("--schedules", type=int, default=1000)
    asked = commands.add_parser("run", help="one schedule")
    asked.add_argument("seed", type=int)
    options = parser.parse_args()
    if options.command == "soak":
        return soak(options.seconds, options.first)
    if options.command == "mutations":
        return mutations(options.schedules)
    found = batch(options.seed, 1)
    print("\n".join(found.wrong.get(options.seed, ["nothing is wrong"])))
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
