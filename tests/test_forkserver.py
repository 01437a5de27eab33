"""A forked command is to a test what a started one is; what only a true start obeys is not forked."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness import forkserver
from tests.harness.forkserver import Forked

WAIT_S = 20.0
MAPPER = "mappers.runtime"


@pytest.fixture(autouse=True)
def _forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also among soaks, and where somebody has a PYTHONPATH of their own."""
    monkeypatch.setattr(forkserver, "allowed", True)
    monkeypatch.delenv("PYTHONPATH", raising=False)


def test_a_forked_command_answers_as_a_started_one(tmp_path: Path) -> None:
    """Code, streams, environment and directory."""
    environment = {**os.environ, "COLUMNS": "60"}  # argparse obeys it
    for words, stdin in (
        (["config", "--help"], ""),
        (["status", "--data-dir", "nowhere"], ""),
        (["join", "--cloud", "127.0.0.1:1", "--node", "n", "--data-dir", "here", "--token", "-"], "no token\n"),
    ):
        forked = forkserver.run(
            "edgecore", words, environment=environment, timeout_s=WAIT_S, stdin=stdin, directory=tmp_path
        )
        started = subprocess.run(
            [sys.executable, "-m", "edgecore", *words],
            input=stdin,
            capture_output=True,
            text=True,
            env={**environment, "PYTHONPATH": str(forkserver.ROOT)},
            cwd=tmp_path,
            check=False,
        )
        told = forked.returncode, forked.stdout, forked.stderr
        assert told == (started.returncode, started.stdout, started.stderr)


def test_forked_processes_are_seen_signalled_and_waited_for_each_by_itself(tmp_path: Path) -> None:
    words = ["run", "simulated", "--mqtt", "mqtt://127.0.0.1:1", "--name"]
    with (tmp_path / "log").open("wb") as log:
        one, two = (
            forkserver.start(MAPPER, [*words, name], out=log, error=log, environment=os.environ, directory=tmp_path)
            for name in ("one", "two")
        )
    try:
        assert isinstance(one, Forked)
        by = time.monotonic() + WAIT_S
        while not all(f"mapper={name}" in (tmp_path / "log").read_text() for name in ("one", "two")):
            assert time.monotonic() < by, (tmp_path / "log").read_text()
            time.sleep(0.02)
        for process, name in ((one, "one"), (two, "two")):
            seen = Path(f"/proc/{process.pid}")
            shown = (seen / "cmdline").read_text().rstrip("\0").split("\0")
            assert shown == [sys.executable, "-m", MAPPER, *words, name]
            assert (seen / "cwd").resolve() == tmp_path
            assert os.getpgid(process.pid) == os.getpgid(0)
        with pytest.raises(subprocess.TimeoutExpired):
            one.wait(0.01)
        one.kill()
        assert one.wait(WAIT_S) == one.wait() == -signal.SIGKILL
        assert two.poll() is None
        two.terminate()
        assert two.wait(WAIT_S) == 0
    finally:
        for process in (one, two):
            process.kill()
            process.wait(WAIT_S)


def test_what_an_interpreter_obeys_when_it_starts_is_not_forked(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('customized')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = forkserver.run("edgecore", ["--version"], environment=environment, timeout_s=WAIT_S)
    assert done.stdout.startswith("customized\n")
