"""The `mapper` command as a process: started on a broker, its log read, stopped and killed."""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness import forkserver
from tests.harness.forkserver import ROOT


class MapperProcess:
    """One mapper; use it with `with`, or kill() it."""

    def __init__(self, *arguments: str, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        """arguments: of `mapper`. directory: where it runs and its log is."""
        self._log = directory / f"mapper-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self._process = forkserver.start(
                "mappers.runtime",
                [*arguments, "--log-format", "json"],
                out=log,
                error=log,
                directory=directory,
                environment={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **(environment or {})},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> list[dict[str, object]]:
        """What it wrote; a line that is no log record is a message of its own."""
        lines = []
        for line in self._log.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append({"message": line, "level": "stray"})
        return lines

    def said(self, message: str) -> bool:
        return any(line["message"] == message for line in self.log())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code."""
        self._process.send_signal(number)
        return self._process.wait(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
