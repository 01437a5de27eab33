"""The leash of the demo's children; that they die with a killed demo is in test_demo_children.py."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def leashed(parent: int, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo.leash", str(parent), *command],
        capture_output=True,
        text=True,
        timeout=20,
        cwd=ROOT,
        check=False,
    )


def test_the_leash_becomes_the_command() -> None:
    done = leashed(os.getpid(), sys.executable, "-c", "import os; print(os.getppid()); raise SystemExit(7)")
    assert (done.returncode, done.stdout) == (7, f"{os.getpid()}\n")


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    done = leashed(1, sys.executable, "-c", "print('ran')")
    assert done.returncode == 1
    assert "ended before" in done.stderr
    assert not done.stdout
