"""`python -m benchmarks`: the command itself, with the smallest of its families."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.__main__ import OTHERS, PAGE, PROMISED
from tests.harness.site import ROOT

COMMAND = [sys.executable, "-m", "benchmarks"]


def test_a_family_is_measured_on_real_processes_and_leaves_its_file(tmp_path: Path) -> None:
    output = tmp_path / "made" / "latest.json"
    arguments = ["--only", "edgeapply", "--quick", "--here", "--runs", "1", "--output", str(output)]
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "What is promised" in done.stdout
    family = json.loads(output.read_text())["families"]["edgeapply"]
    assert family["runs"] == 1
    assert all(figure["value"] > 0 for figure in family["figures"])
    assert "edgeapply: 5 figures" in done.stderr


def test_sigterm_ends_the_benchmark_and_all_its_processes(tmp_path: Path) -> None:
    command = [*COMMAND, "--only", "growth", "--quick", "--here", "--output", str(tmp_path / "latest.json")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=ROOT, process_group=0) as bench:
        assert bench.stderr is not None
        assert select.select([bench.stderr], [], [], 20)[0], "it says what it does"
        bench.stderr.readline()
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(20) == 128 + signal.SIGTERM
        # What was just being started ends with its standard input, once it has got so far.
        by = time.monotonic() + 20
        while _members(bench.pid):
            assert time.monotonic() < by, "processes are left"
            time.sleep(0.02)


def test_what_is_promised_is_on_the_page_between_marks_and_every_other_family_is_named_there() -> None:
    page = PAGE.read_text()
    assert [name for name in PROMISED if f"<!-- bench {name} -->" not in page] == []
    assert [name for name in OTHERS if f"--only {name}" not in page] == []


def _members(group: int) -> list[int]:
    """Processes of a group."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == group:
                found.append(int(path.name))
        except ProcessLookupError:
            continue
    return found
