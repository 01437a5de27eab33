"""A process of ours that is driven from here, line by line; it ends with its standard input."""

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
WITHIN_S = 120.0


class Commanded:
    """A process of ours that answers each line with a line of JSON."""

    def __init__(self, core: int | None, module: str, *arguments: str) -> None:
        """core: the only one that it runs on, where there is that; None for any."""
        self._name = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
        )
        self.pid = self._process.pid
        if core is not None and core in os.sched_getaffinity(0):
            os.sched_setaffinity(self.pid, {core})

    def ask(self, command: str, within_s: float = WITHIN_S) -> dict[str, Any]:
        """Raises AssertionError where it ends instead, or does not answer in time."""
        self.tell(command)
        return self.answer(within_s)

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None, "made with a pipe"
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()

    def answer(self, within_s: float = WITHIN_S) -> dict[str, Any]:
        assert self._process.stdout is not None, "made with a pipe"
        assert select.select([self._process.stdout], [], [], within_s)[0], f"{self._name}: no answer in {within_s:g} s"
        line = self._process.stdout.readline()
        assert line, f"{self._name} ended with code {self._process.wait()}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
