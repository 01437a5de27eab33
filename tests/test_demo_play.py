"""The demo itself, as `make demo` runs it: real processes through start, crash, stop and resume."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.state import State

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.timeout(240)


class Run:
    """One `python -m demo`, its output collected as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.text = ""

    async def collect(self) -> None:
        assert self.process.stdout is not None
        while chunk := await self.process.stdout.read(65536):
            self.text += chunk.decode()

    async def until(self, pattern: str, *, since: int = 0, within_s: float = 90.0) -> re.Match[str]:
        deadline = time.monotonic() + within_s
        while (found := re.compile(pattern, re.DOTALL).search(self.text, since)) is None:
            assert self.process.returncode is None, f"the demo ended:\n{self.text}"
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text[-6000:]}"
            await asyncio.sleep(0.05)
        return found


@contextlib.asynccontextmanager
async def demo(folder: Path) -> AsyncIterator[Run]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "demo", "--data-dir", str(folder)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    run = Run(process)
    async with asyncio.TaskGroup() as group:
        group.create_task(run.collect(), name="collect")
        try:
            yield run
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def processes_of(folder: Path) -> dict[int, str]:
    """Who runs with this data directory in its command line, the demo itself left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            if str(folder) in command and "-m demo " not in command:
                found[int(entry.name)] = command
    return found


async def gone(folder: Path) -> bool:
    deadline = time.monotonic() + 5
    while processes_of(folder):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def test_start_obey_crash_stop_resume_and_be_killed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    async with demo(folder) as run:
        await run.until(r"edge-1 +connected")
        await run.until(r"thermostat +edge-1 +online +setpoint +21 +in step +21(\.0+)? °C +\S+")
        assert (folder / "apiserver" / "kubeconfig").exists()
        assert "kubectl patch device thermostat --type merge" in run.text

        cloudcore = next(command for command in processes_of(folder).values() if "cloudcore run" in command)
        assert "/cloudcore.kubeconfig" in cloudcore, "it has the rights that are printed, and not an admin's"
        assert "orbidden" not in (folder / "logs" / "cloudcore.log").read_text()

        edgecore = next(pid for pid, command in processes_of(folder).items() if "edgecore" in command)
        os.kill(edgecore, signal.SIGKILL)
        told = await run.until("edgecore died of SIGKILL")
        await run.until(r"edgecore running \(restarted 1×\).*edge-1 +connected", since=told.end())

        began = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        assert await run.process.wait() == 0
        assert time.monotonic() - began < 5.5
    assert await gone(folder)
    assert State.load(folder).has_devices

    async with demo(folder) as run:
        await run.until(r"edge-1 +connected")
        await run.until(r"in step")
        assert not (folder / "logs" / "edgecore-join.log").stat().st_size
        run.process.kill()
        await run.process.wait()
    assert await gone(folder)

    shutil.rmtree(folder / "apiserver")  # another cluster: the edge must join anew
    async with demo(folder) as run:
        await run.until(r"edge-1 +connected.*thermostat +edge-1 +online +setpoint +21 +in step +21")
        run.process.send_signal(signal.SIGTERM)
        assert await run.process.wait() == 0


async def test_two_demos_do_not_share_a_directory(tmp_path: Path) -> None:
    async with demo(tmp_path / "demo") as one:
        await one.until("starting apiserver")
        async with demo(tmp_path / "demo") as two:
            assert await two.process.wait() == 1
        assert re.search(r"in use by process \d+; stop it", two.text)
        one.process.send_signal(signal.SIGTERM)
        assert await one.process.wait() == 0
    assert await gone(tmp_path / "demo")
