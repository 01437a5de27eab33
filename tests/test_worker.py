"""A worker's two pipes to its supervisor. The rest: test_supervisor.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudhub import worker
from tests.harness.site import ROOT

PROGRAM = """
from cloudhub import worker
from componentbase import cli
worker.say_serving({"link": "127.0.0.1:1"})
raise SystemExit(cli.run(worker.end_with_supervisor(), prog="cloudcore"))
"""


def test_it_says_that_it_serves_and_ends_with_its_standard_input() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == {"link": "127.0.0.1:1"}
        assert process.poll() is None
        _, said = process.communicate(timeout=20)  # closes the pipe
    assert process.returncode == 1
    assert said.endswith("cloudcore: error: the supervisor is gone\n")


def test_each_has_a_directory_of_its_own(tmp_path: Path) -> None:
    assert worker.data_dir(tmp_path, 1) != worker.data_dir(tmp_path, 2)


def test_a_terminal_is_told_from_a_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    with os.fdopen(leader), os.fdopen(follower) as terminal, open(os.devnull) as nothing:
        for stdin, expected in ((terminal, True), (nothing, False), (None, False)):
            monkeypatch.setattr(sys, "stdin", stdin)
            assert worker.has_terminal() is expected
