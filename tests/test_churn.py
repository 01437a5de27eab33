"""
An hour of churn takes no more memory, descriptors, threads, tasks or disk than its beginning.

What happens meanwhile is tests/harness/churn.py's. `make soak ARGS=tests/test_churn.py` leaves its samples and the
figures that docs/performance.md shows of them in benchmarks/results.
"""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.__main__ import RESULTS
from benchmarks.figures import Curve, Figure, drift
from tests.conftest import KUBECTLS, find_tool
from tests.harness.churn import EDGE, Churn, Pace, Sample
from tests.test_faults import Line, figure, make_model

HOUR = Pace(3600.0, nodes=50, pods_each=4, devices=20, edits_per_s=6.0, reports_per_s=4.0, cut_s=30.0, guests_s=60.0,
            mappers_s=20.0, sample_s=10.0)  # fmt: skip
SHORT = Pace(12.0, nodes=5, pods_each=4, devices=4, edits_per_s=20.0, reports_per_s=10.0, cut_s=3.0, guests_s=2.0,
             mappers_s=2.0, sample_s=0.5)  # fmt: skip

SETTLING = 0.25
"""The part of the time in which what is kept up to a bound comes to that."""
MEMORY_KB_PER_HOUR = 1024.0  # HOUR has 21,600 edits: 50 bytes kept of each were seen
FILE_KB_PER_HOUR = 256.0
EDITS_PER_S = 2.0
"""At least, however slow the machine is, so that it has been churn."""
HEARTBEAT_S = 5.0
LOG = "churn.jsonl"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    kubectl = next(tool for name in (*KUBECTLS, "kubectl") if (tool := find_tool(name)))
    with Line(tmp_path_factory.mktemp("churn")) as line:
        line.start_hub(heartbeat_s=HEARTBEAT_S)
        line.apply_crds(kubectl)
        line.do(make_model)
        yield line


def risen(samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """
    By figure that rose by more than it may in the samples after SETTLING: what it rose by, and what it may.

    Memory and files in kB per hour; whatever is counted by less than one in all that time.
    """
    settled = samples[math.floor(len(samples) * SETTLING) :]
    hours = (settled[-1].at_s - settled[0].at_s) / 3600
    found: dict[str, tuple[float, float]] = {}
    for name, rise, most in rises(settled):
        by = rise if most is not None else rise * hours
        if by >= (1.0 if most is None else most):
            found[name] = (by, 1.0 if most is None else most)
    return found


def rises(settled: Sequence[Sample]) -> Iterator[tuple[str, float, float | None]]:
    """Of each figure what it rises by in an hour, and what it may, where that is told for an hour."""
    for name in settled[0].figures:
        kind = name.rpartition(" ")[2]
        if kind == "processor":
            continue
        most = {"resident": MEMORY_KB_PER_HOUR, "anonymous": MEMORY_KB_PER_HOUR, "file": FILE_KB_PER_HOUR}.get(kind)
        yield name, drift([(each.at_s / 3600, each.figures[name]) for each in settled]), most


def test_what_grows_among_what_does_not_is_found() -> None:
    rng = random.Random(1)

    def sample(second: int) -> Sample:
        noise = rng.uniform(0, 3000)  # kB; a collection comes and goes
        leaking = {"cloud anonymous": 90_000 + noise + second, "edge descriptors": 20.0 + second // 1000}
        steady = {
            "edge anonymous": 30_000 + noise,
            "hub_tasks": 30.0 + rng.randrange(5),
            "cloud processor": second * 1.0,
        }
        return Sample(second, leaking | steady)

    samples = [sample(second) for second in range(0, 3600, 10)]
    assert set(risen(samples)) == {"cloud anonymous", "edge descriptors"}


@pytest.mark.parametrize(
    "pace",
    [
        pytest.param(SHORT, marks=pytest.mark.timeout(120)),
        pytest.param(HOUR, marks=[pytest.mark.soak, pytest.mark.timeout(0)]),
    ],
    ids=["short", "hour"],
)
def test_churn_leaves_nothing_behind(line: Line, pace: Pace, tmp_path: Path) -> None:
    log = tmp_path / LOG
    if pace is HOUR:
        RESULTS.mkdir(exist_ok=True)
        log = RESULTS / LOG
        log.unlink(missing_ok=True)
    began = results.Family(1)
    with Churn(line, pace, 1, log) as churn:
        line.do(churn.run)
        for name, count in churn.done.items():
            figure(name, count)
        assert churn.done["edit"] > pace.seconds * EDITS_PER_S
        assert min(churn.done[name] for name in ("cut", "guests", "mapper", "reader")) >= 2
        assert churn.done["report acknowledged"] > churn.done["report"] / 2
        if pace is HOUR:
            write_results(began, churn.samples)
            assert risen(churn.samples) == {}
        line.assert_nothing_was_healed("cloud")
        assert line.equal(EDGE) > pace.pods_each


def write_results(family: results.Family, samples: Sequence[Sample]) -> None:
    """What `python -m benchmarks --write-docs` puts into the page."""
    first, last = samples[0], samples[-1]
    family.seconds = last.at_s - first.at_s
    settled = samples[math.floor(len(samples) * SETTLING) :]
    shown = {name: (rise, most) for name, rise, most in rises(settled) if most is not None}
    for name, (rise, most) in shown.items():
        process, _, kind = name.rpartition(" ")
        now = settled[-1].figures[name] / 1024
        family.add([Figure(f"{process}: {kind}, rises by", "KB/h", [rise], most, f"{now:.1f} MB at the end")])
        if kind == "anonymous":
            points = [((each.at_s - first.at_s) / 60, each.figures[name] / 1024) for each in samples]
            family.add([Curve("churn", process, points)])
    for name in ("hub_objects", "hub_tasks", "hub nodes known", "edge_objects", "edge_tasks", "cloud descriptors"):
        family.add([Figure(f"{name.replace('_', ' ')}: median", "", [each.figures[name] for each in settled])])
    for process in ("api", "cloud", "edge", "swarm"):
        used = last.figures[f"{process} processor"] - first.figures[f"{process} processor"]
        family.add([Figure(f"{process}: processor", "% of a core", [used / family.seconds * 100])])
    path = RESULTS / "latest.json"
    results.write(path, results.read(path) | {"churn": family})
