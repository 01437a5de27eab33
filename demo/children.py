"""
The demo's processes: started on a leash, logged to a file, started again when they die, stopped in reverse order.

A child that dies is started again because that is what an init system does on a real machine, and because
killing one and watching it recover is part of what the demo is for. One that cannot even start is not
hidden by that: after a few deaths shortly after birth the demo gives up and shows its log.

Invariants
    a child leads a session of its own, so that a ctrl-c in the terminal reaches the demo alone
    stop() returns within its budget with no child left, whatever the children do
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from componentbase.errors import CommandError
from demo.table import Process, printable

EARLY_S = 5.0
"""A process that dies sooner than this after its start has not really started."""
MAX_EARLY_DEATHS = 3
LOG_BYTES = 4 << 20  # a log above this is set aside when its process starts, so two of them are the most there is
_BACKOFF_S = (0.5, 1.0, 2.0, 4.0)
_TAIL_BYTES = 8192


class ChildFailed(CommandError):
    """A process the demo needs cannot be kept running. The text shows the end of its log."""

    def __init__(self, name: str, exit_code: int | None, log: Path) -> None:
        super().__init__(name, exit_code, log)
        self.name = name
        self.exit_code = exit_code
        self.log = log

    def __str__(self) -> str:
        if self.exit_code is None:
            how = "did not get to work in time"
        elif self.exit_code < 0:
            how = f"died of {_signal(self.exit_code)}"
        else:
            how = f"ended with exit code {self.exit_code}"
        said = "\n".join(f"    {line}" for line in tail(self.log)) or "    (nothing)"
        return f"{self.name} {how}. The last it said, in {self.log}:\n{said}"


class Child:
    """One process of the demo."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.state = "not started"
        self._command = [sys.executable, *command]
        self._log = log
        self._environment = dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0
        self._deaths: deque[bool] = deque(maxlen=MAX_EARLY_DEATHS)
        self._restarts = 0

    @property
    def shown(self) -> Process:
        """How the table shows it."""
        again = f" (restarted {self._restarts}×)" if self._restarts and self.state == "running" else ""
        return Process(self.name, self.state + again)

    async def start(self) -> None:
        """Start the process; whether it lives is for keep_running() and until() to see."""
        _set_aside(self._log)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_leashed(self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=self._environment,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self._started_at = time.monotonic()
        self.state = "running"

    async def until(self, is_ready: Callable[[], Awaitable[bool]], within_s: float) -> None:
        """Wait until the process does its work; ChildFailed when it dies first or takes too long."""
        deadline = time.monotonic() + within_s
        while not await is_ready():
            assert self._process is not None, "until() before start()"
            if self._process.returncode is not None or time.monotonic() > deadline:
                raise ChildFailed(self.name, self._process.returncode, self._log)
            await asyncio.sleep(0.05)

    async def keep_running(self, tell: Callable[[str], None]) -> None:
        """Start it again whenever it dies, and tell; never returns. ChildFailed when it keeps dying at once."""
        while True:
            assert self._process is not None, "keep_running() before start()"
            code = await self._process.wait()
            self._deaths.append(time.monotonic() - self._started_at < EARLY_S)
            if len(self._deaths) == MAX_EARLY_DEATHS and all(self._deaths):
                raise ChildFailed(self.name, code, self._log)
            tell(f"{ChildFailed(self.name, code, self._log)}\n  It is started again.")
            self.state = "restarting"
            await asyncio.sleep(_BACKOFF_S[min(sum(self._deaths), len(_BACKOFF_S) - 1)])
            self._restarts += 1
            await self.start()

    async def stop(self, within_s: float) -> None:
        """Ask it to end, and end it when it has not within that time."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(within_s):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self.state = "stopped"


async def stop_all(children: Sequence[Child], within_s: float) -> None:
    """Stop them, the last first, each with its share of the time that is left."""
    deadline = time.monotonic() + within_s
    for left in range(len(children), 0, -1):
        await children[left - 1].stop(max(0.1, (deadline - time.monotonic()) / left))


async def output_of(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, stdin: str = "", within_s: float = 60.0
) -> str:
    """What a short command prints; ChildFailed, with what it said on stderr in the log, when it does not succeed."""
    name = " ".join(command[1:3])
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *_leashed([sys.executable, *command]),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=descriptor,
            env=dict(environment),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    try:
        async with asyncio.timeout(within_s):
            out, _ = await process.communicate(stdin.encode())
    except TimeoutError:
        raise ChildFailed(name, None, log) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise ChildFailed(name, process.returncode, log)
    return out.decode()


def tail(log: Path, count: int = 8) -> list[str]:
    """The last lines of a log, fit for a terminal."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [printable(line, 500) for line in text.splitlines()[-count:]]


def _leashed(command: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "demo.leash", str(os.getpid()), *command]


def _set_aside(log: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _signal(code: int | None) -> str:
    try:
        return signal.Signals(-(code or 0)).name
    except ValueError:
        return f"signal {-(code or 0)}"
