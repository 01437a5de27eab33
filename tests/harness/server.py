"""
A device's server as a process of its own, for tests of drivers: started, killed without a word, started again.

The module is run with python -m; it prints "ready WHERE" when it serves. With "0" for a port in the arguments it takes
a free one, says which, and gets the same again when it is restarted.
"""

import selectors
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.site import ROOT

READY_WITHIN_S = 60.0  # a server that loads its whole address space takes seconds of processor time
STOP_WITHIN_S = 5.0


class Server:
    def __init__(self, module: str, *arguments: str, log: Path | None = None) -> None:
        self._module = module
        self._arguments: Sequence[str] = arguments
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self.where = ""
        """The port, or the path, that it serves."""

    @property
    def port(self) -> int:
        return int(self.where)

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it serves; AssertionError if it does not."""
        assert self._process is None, "it runs already"
        arguments = [self.where if each == "0" and self.where else each for each in self._arguments]
        command = [sys.executable, "-m", self._module, *arguments]
        if self._log is None:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        else:
            with self._log.open("a") as log:
                self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(READY_WITHIN_S) else ""
        word, _, self.where = line.strip().partition(" ")
        if word != "ready":
            self.kill()
            raise AssertionError(f"{self._module} did not start")

    def kill(self) -> None:
        """kill -9. Harmless if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(STOP_WITHIN_S)
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
